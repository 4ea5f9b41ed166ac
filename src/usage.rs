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
