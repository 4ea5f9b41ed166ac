//! Which models count alike.

use bpe_openai::Tokenizer;

use super::text::Costs;

/// Models that cut texts into tokens in the same way, or nearly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// OpenAI's, since GPT-4o.
    O200k,
    /// OpenAI's before that, and its embeddings.
    Cl100k,
    /// Anthropic's, whose tokenizers are not public.
    Anthropic,
    /// All others.
    Other,
}

/// What one more of a kind costs at most, in tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extras {
    /// Anything that is asked: what a chat template puts around it.
    pub(super) request: u64,
    /// A message, or a part of one.
    pub(super) part: u64,
    /// Any tools at all: how they are to be called is explained to the model.
    pub(super) tools: u64,
    /// Each tool.
    pub(super) tool: u64,
    /// An image of unknown size.
    pub(super) image: u64,
    /// An image that was asked to be looked at coarsely.
    pub(super) coarse_image: u64,
    /// An image that was asked to be looked at as it is, or in a way that is not known here.
    pub(super) fine_image: u64,
}

impl Extras {
    /// An image, by the detail that was asked for.
    pub(super) fn image_seen(&self, detail: Option<&str>) -> u64 {
        match detail {
            Some("low") => self.coarse_image,
            None | Some("auto" | "high") => self.image,
            Some(_) => self.fine_image,
        }
    }
}

impl Family {
    /// By the model's name, whoever serves it: `openai/gpt-4o`, `us.anthropic.claude-opus-4-6-v1:0`. A name that says nothing is
    /// any other model's.
    pub(super) fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or_default();
        let starts = |prefixes: &[&str]| {
            prefixes.iter().any(|prefix| {
                name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            })
        };
        if contains(name, "claude") {
            Self::Anthropic
        } else if starts(&["gpt-oss"]) {
            // Its template explains itself at length.
            Self::Other
        } else if starts(&[
            "gpt-3",
            "gpt-4-",
            "gpt-4 ",
            "gpt-35",
            "text-embedding-",
            "babbage-002",
            "davinci-002",
        ]) || name.eq_ignore_ascii_case("gpt-4")
        {
            Self::Cl100k
        } else if starts(&["gpt-", "chatgpt-", "o1", "o3", "o4"]) {
            Self::O200k
        } else {
            Self::Other
        }
    }

    pub(super) fn costs(self) -> &'static Costs {
        match self {
            Self::O200k => &Costs::O200K,
            Self::Cl100k => &Costs::CL100K,
            Self::Anthropic => &Costs::ANTHROPIC,
            Self::Other => &Costs::OTHER,
        }
    }

    pub(super) fn extras(self, model_is_large_on_images: bool) -> Extras {
        match self {
            Self::O200k | Self::Cl100k => Extras {
                request: 32,
                part: 4,
                tools: 24,
                tool: 12,
                image: if model_is_large_on_images { 48_200 } else { 4_096 },
                coarse_image: if model_is_large_on_images { 2_900 } else { 300 },
                // 10,000 patches, which the smallest models multiply.
                fine_image: if model_is_large_on_images { 48_200 } else { 25_000 },
            },
            Self::Anthropic => Extras {
                request: 48,
                part: 12,
                tools: 700,
                tool: 24,
                image: 5_000,
                coarse_image: 5_000,
                fine_image: 5_000,
            },
            Self::Other => Extras {
                request: 128,
                part: 8,
                tools: 600,
                tool: 24,
                image: 5_000,
                coarse_image: 5_000,
                fine_image: 5_000,
            },
        }
    }

    /// The nearest tokenizer that is public, and how many tokens the family makes of ten of its.
    pub(super) fn tokenizer(self) -> (&'static Tokenizer, u64) {
        match self {
            Self::O200k => (bpe_openai::o200k_base(), 10),
            Self::Cl100k => (bpe_openai::cl100k_base(), 10),
            Self::Anthropic => (bpe_openai::cl100k_base(), 17),
            Self::Other => (bpe_openai::cl100k_base(), 14),
        }
    }
}

/// Whether a name holds a word, in whichever case.
pub(super) fn contains(name: &str, word: &str) -> bool {
    name.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_name_wherever_it_is_served() {
        for (model, family) in [
            ("gpt-4o-mini", Family::O200k),
            ("openai/gpt-5.1-codex", Family::O200k),
            ("o3-mini", Family::O200k),
            ("gpt-4", Family::Cl100k),
            ("gpt-4-turbo", Family::Cl100k),
            ("gpt-4.1", Family::O200k),
            ("text-embedding-3-small", Family::Cl100k),
            ("us.anthropic.claude-opus-4-6-v1:0", Family::Anthropic),
            ("anthropic/Claude-Sonnet-5", Family::Anthropic),
            ("gpt-oss-120b", Family::Other),
            ("llama-3.3-70b", Family::Other),
            ("gp\u{df}t", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(Family::of(model), family, "{model}");
        }
    }
}
