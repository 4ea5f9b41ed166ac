//! L0. Token counts as providers report them.
//!
//! Reports are hostile input: a count that is not a number is as good as not reported, and none can be so large that adding
//! counts overflows.

use serde_json::{Map, Value};

/// The largest count kept, 2^53 - 1: exact as a double (what dynamic metadata holds), and far from overflow in sums.
/// Larger reports are cut to it.
pub const MAX_COUNT: u64 = (1 << 53) - 1;

/// Tokens of one exchange by class. `None`: the provider did not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub input: Option<u64>,
    /// Prompt tokens read from the provider's cache.
    pub cached_input: Option<u64>,
    /// Prompt tokens written to the provider's cache.
    pub cache_creation_input: Option<u64>,
    /// Tokens of the answer, reasoning included.
    pub output: Option<u64>,
    /// Prompt and answer as the provider adds them up.
    pub total: Option<u64>,
    /// Answer tokens spent on reasoning.
    pub reasoning: Option<u64>,
}

impl TokenUsage {
    /// Reads OpenAI's `usage` object, that of chat completions, completions and embeddings (`prompt_tokens`, …) as well as
    /// that of the responses API (`input_tokens`, …). Returns `None` unless the bytes are a JSON object.
    ///
    /// Members of another type than a number count as absent. Where a details object exists, classes it does not name
    /// are zero: the provider reports that kind of detail and had nothing to report.
    #[must_use]
    pub fn from_openai(usage: &[u8]) -> Option<Self> {
        Self::from_openai_value(&serde_json::from_slice(usage).ok()?)
    }

    /// As [`TokenUsage::from_openai`], from a parsed value.
    #[must_use]
    pub fn from_openai_value(usage: &Value) -> Option<Self> {
        let usage = usage.as_object()?;
        let count = |names: [&str; 2]| names.iter().find_map(|name| count_of(usage, name));
        let details = |names: [&str; 2]| names.iter().find_map(|name| usage.get(*name)?.as_object());
        let detail = |of: Option<&Map<String, Value>>, name| of.map(|of| count_of(of, name).unwrap_or(0));

        let prompt = details(["prompt_tokens_details", "input_tokens_details"]);
        let completion = details(["completion_tokens_details", "output_tokens_details"]);
        Some(Self {
            input: count(["prompt_tokens", "input_tokens"]),
            cached_input: detail(prompt, "cached_tokens"),
            cache_creation_input: detail(prompt, "cache_creation_input_tokens"),
            output: count(["completion_tokens", "output_tokens"]),
            total: count(["total_tokens", "total_tokens"]),
            reasoning: detail(completion, "reasoning_tokens"),
        })
    }

    /// Reads Cohere's `meta` object of a rerank answer: `tokens.input_tokens` and `tokens.output_tokens`, the total being
    /// their sum. Returns `None` unless the bytes are a JSON object.
    #[must_use]
    pub fn from_cohere_meta(meta: &[u8]) -> Option<Self> {
        let meta: Value = serde_json::from_slice(meta).ok()?;
        let Some(tokens) = meta.as_object()?.get("tokens").and_then(Value::as_object) else {
            return Some(Self::default());
        };
        let (input, output) = (count_of(tokens, "input_tokens"), count_of(tokens, "output_tokens"));
        let total = (input.is_some() || output.is_some())
            .then(|| input.unwrap_or(0).saturating_add(output.unwrap_or(0)).min(MAX_COUNT));
        Some(Self { input, output, total, ..Self::default() })
    }

    /// Reads a bare number of prompt tokens, as token counting endpoints answer with.
    #[must_use]
    pub fn from_input_tokens(number: &[u8]) -> Option<Self> {
        let object = [&b"{\"n\":"[..], number, b"}"].concat();
        let object: Value = serde_json::from_slice(&object).ok()?;
        Some(Self { input: count_of(object.as_object()?, "n"), ..Self::default() })
    }

    /// Takes over every count of a later report, and keeps the ones the later report does not have.
    pub fn merge(&mut self, later: Self) {
        let Self { input, cached_input, cache_creation_input, output, total, reasoning } = later;
        self.input = input.or(self.input);
        self.cached_input = cached_input.or(self.cached_input);
        self.cache_creation_input = cache_creation_input.or(self.cache_creation_input);
        self.output = output.or(self.output);
        self.total = total.or(self.total);
        self.reasoning = reasoning.or(self.reasoning);
    }

    /// Whether nothing was reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every count, unreported ones as zero.
    #[must_use]
    pub fn or_zero(&self) -> Counts {
        let Self { input, cached_input, cache_creation_input, output, total, reasoning } = *self;
        Counts {
            input: input.unwrap_or(0),
            cached_input: cached_input.unwrap_or(0),
            cache_creation_input: cache_creation_input.unwrap_or(0),
            output: output.unwrap_or(0),
            total: total.unwrap_or(0),
            reasoning: reasoning.unwrap_or(0),
        }
    }
}

/// [`TokenUsage`] with unreported counts as zero. The fields mean the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are those of TokenUsage")]
pub struct Counts {
    pub input: u64,
    pub cached_input: u64,
    pub cache_creation_input: u64,
    pub output: u64,
    pub total: u64,
    pub reasoning: u64,
}

/// Anthropic's counts, which keep cached prompt tokens apart from the others. A streamed answer reports them in parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnthropicCounts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    output: Option<u64>,
}

impl AnthropicCounts {
    /// Reads a `usage` object. Returns `None` unless the bytes are a JSON object.
    #[must_use]
    pub fn read(usage: &[u8]) -> Option<Self> {
        let usage: Value = serde_json::from_slice(usage).ok()?;
        let usage = usage.as_object()?;
        Some(Self {
            input: count_of(usage, "input_tokens"),
            cache_read: count_of(usage, "cache_read_input_tokens"),
            cache_creation: count_of(usage, "cache_creation_input_tokens"),
            output: count_of(usage, "output_tokens"),
        })
    }

    /// As [`AnthropicCounts::read`], for the `usage` of AWS Bedrock's Converse API, which counts in the same way.
    #[must_use]
    pub fn read_converse(usage: &[u8]) -> Option<Self> {
        let usage: Value = serde_json::from_slice(usage).ok()?;
        let usage = usage.as_object()?;
        Some(Self {
            input: count_of(usage, "inputTokens"),
            cache_read: count_of(usage, "cacheReadInputTokens"),
            cache_creation: count_of(usage, "cacheWriteInputTokens"),
            output: count_of(usage, "outputTokens"),
        })
    }

    /// Takes over a later report of the same answer: its output always, prompt counts only where they are not zero.
    pub fn update(&mut self, later: Self) {
        let positive = |count: Option<u64>| count.filter(|count| *count > 0);
        self.output = later.output.or(self.output);
        self.input = positive(later.input).or(self.input);
        self.cache_read = positive(later.cache_read).or(self.cache_read);
        self.cache_creation = positive(later.cache_creation).or(self.cache_creation);
    }

    /// The counts in everyone's terms: prompt tokens include cached ones, and the total is the sum.
    #[must_use]
    pub fn unified(&self) -> TokenUsage {
        let Self { input, cache_read, cache_creation, output } = *self;
        let sum = |counts: &[Option<u64>]| {
            counts.iter().any(Option::is_some).then(|| {
                counts.iter().flatten().fold(0u64, |sum, count| sum.saturating_add(*count)).min(MAX_COUNT)
            })
        };
        TokenUsage {
            input: sum(&[input, cache_read, cache_creation]),
            cached_input: cache_read,
            cache_creation_input: cache_creation,
            output,
            total: sum(&[input, cache_read, cache_creation, output]),
            reasoning: None,
        }
    }
}

/// A member as a count: whole numbers as they are, fractions cut off; negative ones and other types are no counts.
fn count_of(object: &Map<String, Value>, name: &str) -> Option<u64> {
    let Value::Number(number) = object.get(name)? else { return None };
    let count = match number.as_u64() {
        Some(count) => count,
        // `as` saturates, so that 1e300 becomes the largest value and not a wrapped one.
        None => number.as_f64().filter(|value| *value >= 0.0)? as u64,
    };
    Some(count.min(MAX_COUNT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> TokenUsage {
        TokenUsage::from_openai(json.as_bytes()).expect("an object")
    }

    #[test]
    fn chat_usage_with_details() {
        let usage = read(
            r#"{"prompt_tokens":75,"completion_tokens":1186,"total_tokens":1261,
                "prompt_tokens_details":{"cached_tokens":7,"cache_creation_input_tokens":5,"audio_tokens":0},
                "completion_tokens_details":{"reasoning_tokens":1024}}"#,
        );
        let expected = TokenUsage {
            input: Some(75),
            cached_input: Some(7),
            cache_creation_input: Some(5),
            output: Some(1186),
            total: Some(1261),
            reasoning: Some(1024),
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn embeddings_usage_names_no_output() {
        let usage = read(r#"{"prompt_tokens":8,"total_tokens":8}"#);
        assert_eq!(usage, TokenUsage { input: Some(8), total: Some(8), ..TokenUsage::default() });
    }

    #[test]
    fn responses_usage() {
        let usage = read(
            r#"{"input_tokens":3,"input_tokens_details":{"cached_tokens":2},"output_tokens":4,
                "output_tokens_details":{"reasoning_tokens":1},"total_tokens":7}"#,
        );
        assert_eq!((usage.input, usage.output, usage.total), (Some(3), Some(4), Some(7)));
        assert_eq!((usage.cached_input, usage.reasoning), (Some(2), Some(1)));
    }

    #[test]
    fn a_details_object_makes_its_unnamed_classes_zero_and_a_null_one_does_not() {
        let usage = read(r#"{"prompt_tokens_details":{},"completion_tokens_details":null}"#);
        assert_eq!(
            (usage.cached_input, usage.cache_creation_input, usage.reasoning),
            (Some(0), Some(0), None)
        );
    }

    #[test]
    fn what_is_not_a_count_is_not_reported() {
        let usage = read(
            r#"{"prompt_tokens":-1,"completion_tokens":"12","total_tokens":null,"prompt_tokens_details":[]}"#,
        );
        assert!(usage.is_empty());
        for not_an_object in ["", "null", "[]", "12", "{", r#"{"prompt_tokens":1}x"#] {
            assert_eq!(TokenUsage::from_openai(not_an_object.as_bytes()), None, "{not_an_object}");
        }
    }

    #[test]
    fn fractions_are_cut_and_huge_values_saturate() {
        let usage =
            read(r#"{"prompt_tokens":1.9,"completion_tokens":18446744073709551616,"total_tokens":1e300}"#);
        assert_eq!((usage.input, usage.output, usage.total), (Some(1), Some(MAX_COUNT), Some(MAX_COUNT)));
    }

    #[test]
    fn cohere_and_counting_endpoints() {
        let usage =
            TokenUsage::from_cohere_meta(br#"{"tokens":{"input_tokens":12.9,"output_tokens":1}}"#).unwrap();
        assert_eq!((usage.input, usage.output, usage.total), (Some(12), Some(1), Some(13)));
        assert_eq!(TokenUsage::from_cohere_meta(br#"{"billed_units":{}}"#), Some(TokenUsage::default()));
        assert_eq!(TokenUsage::from_input_tokens(b" 7 ").unwrap().input, Some(7));
        assert_eq!(TokenUsage::from_input_tokens(b"7}"), None);
        assert!(TokenUsage::from_input_tokens(b"\"7\"").unwrap().is_empty());
    }

    #[test]
    fn anthropic_counts_are_unified_and_updated() {
        let start = br#"{"input_tokens":3,"cache_read_input_tokens":10,"cache_creation_input_tokens":5,"output_tokens":1}"#;
        let mut counts = AnthropicCounts::read(start).unwrap();
        let usage = counts.unified();
        assert_eq!(
            (usage.input, usage.cached_input, usage.cache_creation_input),
            (Some(18), Some(10), Some(5))
        );
        counts.update(AnthropicCounts::read(br#"{"input_tokens":0,"output_tokens":42}"#).unwrap());
        let usage = counts.unified();
        assert_eq!((usage.input, usage.output, usage.total), (Some(18), Some(42), Some(60)));
        assert!(AnthropicCounts::default().unified().is_empty());
    }

    #[test]
    fn a_later_report_wins_count_by_count() {
        let mut usage = read(r#"{"prompt_tokens":1,"completion_tokens":1}"#);
        usage.merge(read(r#"{"completion_tokens":9,"total_tokens":10}"#));
        assert_eq!((usage.input, usage.output, usage.total), (Some(1), Some(9), Some(10)));
        assert_eq!(usage.or_zero(), Counts { input: 1, output: 9, total: 10, ..Counts::default() });
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_in_bounds(bytes in prop::collection::vec(any::<u8>(), 0..64), number in "-?[0-9]{1,40}(\\.[0-9]{1,3})?(e-?[0-9]{1,3})?") {
            let _ = TokenUsage::from_openai(&bytes);
            let json = format!(r#"{{"prompt_tokens":{number},"total_tokens":7}}"#);
            if let Some(usage) = TokenUsage::from_openai(json.as_bytes()) {
                prop_assert!(usage.input.unwrap_or(0) <= MAX_COUNT);
                prop_assert_eq!(usage.total, Some(7));
            }
        }
    }
}
