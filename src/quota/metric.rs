//! What a limit counts: the most that a request may cost by it, and what it did cost.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Bound, MAX_AMOUNT, PerOutput};
use crate::cost::{Cost, CostFacts};
use crate::tenant::naming::allows;
use crate::usage::TokenUsage;

/// Token prices are for so many tokens.
const PRICED_TOKENS: u64 = 1_000_000;

/// The most that numerators and denominators of a [`PerOutput`] may be.
const MAX_FACTOR: u128 = 1_000_000_000;

/// The highest price of a million tokens, in millionths of the currency.
pub const MAX_PRICE: u64 = 10_000_000_000_000;

/// What a limit counts.
#[derive(Debug, Clone)]
pub enum Metric {
    /// Tokens of one class.
    Tokens(Class),
    /// The result of an expression over the tokens.
    Cel(Cost),
    /// Requests, each one.
    Requests,
    /// Money, in millionths of the currency.
    Money(Arc<Prices>),
    /// Requests that have not ended yet.
    InFlight,
}

/// Classes of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Of the prompt.
    Input,
    /// Of the prompt, read from the provider's cache.
    CachedInput,
    /// Of the prompt, written to the provider's cache.
    CacheCreationInput,
    /// Of the answer.
    Output,
    /// Of prompt and answer.
    Total,
    /// Of the answer, spent on reasoning.
    Reasoning,
}

/// What amounts of a limit are, for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// Tokens.
    Tokens,
    /// Results of an expression.
    Units,
    /// Requests.
    Requests,
    /// Millionths of this currency.
    Money(Arc<str>),
    /// Requests at the same time.
    InFlight,
}

/// What models cost, in millionths of a currency for a million tokens.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    /// What the currency is called.
    pub currency: Arc<str>,
    exact: HashMap<String, Price>,
    /// Names in which `*` stands for any text, in order.
    globs: Vec<(String, Price)>,
}

/// What one model costs, in millionths of a currency for a million tokens. None is above [`MAX_PRICE`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// Tokens of the prompt that are none of the following.
    pub input: u64,
    /// Those read from the provider's cache.
    pub cached_input: u64,
    /// Those written to the provider's cache.
    pub cache_creation_input: u64,
    /// Tokens of the answer.
    pub output: u64,
}

impl Prices {
    /// Prices by names of models, in which `*` stands for any text. A name without one comes first, then the first that fits.
    #[must_use]
    pub fn new(currency: &str, models: impl IntoIterator<Item = (String, Price)>) -> Self {
        let mut prices = Self { currency: currency.into(), ..Self::default() };
        for (name, price) in models {
            if name.contains('*') {
                prices.globs.push((name, price));
            } else {
                prices.exact.entry(name).or_insert(price);
            }
        }
        prices
    }

    /// The price of a model, if it has one.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<&Price> {
        let fits = || self.globs.iter().find(|(glob, _)| allows(glob, model)).map(|(_, price)| price);
        self.exact.get(model).or_else(fits)
    }
}

impl Price {
    /// The highest that a token of a prompt may cost, whatever becomes of it.
    fn any_input(&self) -> u64 {
        self.input.max(self.cached_input).max(self.cache_creation_input)
    }

    fn cost(&self, usage: &TokenUsage) -> u64 {
        let counts = usage.or_zero();
        let cached = counts.cached_input.min(counts.input);
        let created = counts.cache_creation_input.min(counts.input - cached);
        let plain = counts.input - cached - created;
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let sum = part(plain, self.input)
            + part(cached, self.cached_input)
            + part(created, self.cache_creation_input)
            + part(counts.output, self.output);
        amount(sum.div_ceil(u128::from(PRICED_TOKENS)))
    }
}

/// What a request may use at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtMost {
    /// Tokens of the prompt.
    pub(super) prompt: u64,
    /// Tokens of one answer.
    pub(super) output: u64,
    /// How many answers there are.
    pub(super) answers: u64,
}

/// Who is asked, as far as prices and expressions depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) model: &'a str,
    pub(super) backend: &'a str,
    pub(super) route: &'a str,
}

impl Metric {
    /// A word that tells metrics apart: part of the names of buckets.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Tokens(Class::Input) => "input",
            Self::Tokens(Class::CachedInput) => "cached",
            Self::Tokens(Class::CacheCreationInput) => "created",
            Self::Tokens(Class::Output) => "output",
            Self::Tokens(Class::Total) => "total",
            Self::Tokens(Class::Reasoning) => "reasoning",
            Self::Cel(_) => "cel",
            Self::Requests => "requests",
            Self::Money(_) => "money",
            Self::InFlight => "inflight",
        }
    }

    /// What kind of tokens it counts, with a space behind it.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Tokens(Class::Input) => "prompt ",
            Self::Tokens(Class::CachedInput) => "cached prompt ",
            Self::Tokens(Class::CacheCreationInput) => "cache creation ",
            Self::Tokens(Class::Output) => "answer ",
            Self::Tokens(Class::Reasoning) => "reasoning ",
            Self::Tokens(Class::Total) | Self::Cel(_) | Self::Requests | Self::Money(_) | Self::InFlight => {
                ""
            }
        }
    }

    /// What its amounts are.
    pub(super) fn counted(&self) -> Counted {
        match self {
            Self::Tokens(_) => Counted::Tokens,
            Self::Cel(_) => Counted::Units,
            Self::Requests => Counted::Requests,
            Self::Money(prices) => Counted::Money(Arc::clone(&prices.currency)),
            Self::InFlight => Counted::InFlight,
        }
    }

    /// Whether it depends on which backend is asked for which model.
    pub(super) fn depends_on_backend(&self) -> bool {
        matches!(self, Self::Cel(_) | Self::Money(_))
    }

    /// The most that a request may cost.
    pub(super) fn bound(&self, most: AtMost, asked: Asked<'_>) -> Bound {
        let answers = u128::from(most.answers.max(1));
        let tokens = |fixed: u64, output: bool| bound(fixed.into(), if output { answers } else { 0 }, 1);
        match self {
            Self::Tokens(Class::Input | Class::CachedInput | Class::CacheCreationInput) => {
                tokens(most.prompt, false)
            }
            Self::Tokens(Class::Output | Class::Reasoning) => tokens(0, true),
            Self::Tokens(Class::Total) => tokens(most.prompt, true),
            Self::Requests | Self::InFlight => Bound::fixed(1),
            Self::Money(prices) => {
                let price = prices.of(asked.model).copied().unwrap_or_default();
                let prompt = u128::from(most.prompt) * u128::from(price.any_input());
                let fixed = prompt.div_ceil(u128::from(PRICED_TOKENS));
                bound(fixed, answers * u128::from(price.output), PRICED_TOKENS.into())
            }
            Self::Cel(cost) => Bound::fixed(highest(cost, most, asked)),
        }
    }

    /// What a request did cost, by the tokens it used.
    pub(super) fn cost(&self, usage: &TokenUsage, asked: Asked<'_>) -> u64 {
        let counts = usage.or_zero();
        let cost = match self {
            Self::Tokens(Class::Input) => counts.input,
            Self::Tokens(Class::CachedInput) => counts.cached_input,
            Self::Tokens(Class::CacheCreationInput) => counts.cache_creation_input,
            Self::Tokens(Class::Output) => counts.output,
            Self::Tokens(Class::Total) => total(usage),
            Self::Tokens(Class::Reasoning) => counts.reasoning,
            Self::Requests => 1,
            Self::InFlight => 0,
            Self::Money(prices) => prices.of(asked.model).map_or(0, |price| price.cost(usage)),
            // An expression that fails must not make requests free.
            Self::Cel(cost) => evaluate(cost, usage, asked).unwrap_or_else(|| total(usage)),
        };
        cost.min(MAX_AMOUNT)
    }
}

/// Tokens of prompt and answer, also where the provider does not add them up.
fn total(usage: &TokenUsage) -> u64 {
    let counts = usage.or_zero();
    usage.total.unwrap_or_else(|| counts.input.saturating_add(counts.output)).min(MAX_AMOUNT)
}

fn evaluate(cost: &Cost, usage: &TokenUsage, asked: Asked<'_>) -> Option<u64> {
    let Asked { model, backend, route } = asked;
    cost.evaluate(&CostFacts { model, backend, route_name: route, usage }).ok()
}

/// The highest result of an expression for any way in which prompt and answer may fall into classes. That is so for sums with
/// weights, whose highest is at a corner; of others nobody can tell.
fn highest(cost: &Cost, most: AtMost, asked: Asked<'_>) -> u64 {
    let prompt = most.prompt.min(MAX_AMOUNT);
    let output = most.output.saturating_mul(most.answers.max(1)).min(MAX_AMOUNT);
    let mut highest = None;
    for (cached, created) in [(0, 0), (prompt, 0), (0, prompt)] {
        for reasoning in [0, output] {
            let usage = TokenUsage {
                input: Some(prompt),
                cached_input: Some(cached),
                cache_creation_input: Some(created),
                output: Some(output),
                total: Some(prompt.saturating_add(output).min(MAX_AMOUNT)),
                reasoning: Some(reasoning),
            };
            highest = highest.max(evaluate(cost, &usage, asked));
        }
    }
    highest.unwrap_or_else(|| prompt.saturating_add(output)).min(MAX_AMOUNT)
}

/// A bound that a store can compute with: rounded up where the fraction is not one, and more than any limit where that does not
/// help. `denominator` is a power of ten.
fn bound(fixed: u128, mut numerator: u128, mut denominator: u128) -> Bound {
    while numerator > MAX_FACTOR && denominator > 1 {
        numerator = numerator.div_ceil(10);
        denominator /= 10;
    }
    if numerator > MAX_FACTOR {
        return Bound::fixed(MAX_AMOUNT);
    }
    let narrow = |part: u128| u64::try_from(part).unwrap_or(1);
    let per_output = PerOutput { numerator: narrow(numerator), denominator: narrow(denominator.max(1)) };
    Bound { fixed: amount(fixed), per_output }
}

fn amount(amount: u128) -> u64 {
    u64::try_from(amount).map_or(MAX_AMOUNT, |amount| amount.min(MAX_AMOUNT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cost::CostKind;

    const ASKED: Asked<'_> = Asked { model: "m", backend: "d/b", route: "d/r" };

    fn usage(input: u64, cached: u64, created: u64, output: u64, reasoning: u64) -> TokenUsage {
        TokenUsage {
            input: Some(input),
            cached_input: Some(cached),
            cache_creation_input: Some(created),
            output: Some(output),
            total: Some(input + output),
            reasoning: Some(reasoning),
        }
    }

    fn money(price: Price) -> Metric {
        Metric::Money(Arc::new(Prices::new("USD", [("m".to_owned(), price)])))
    }

    #[test]
    fn money_is_counted_by_class_and_rounded_up_once() {
        let metric = money(Price {
            input: 2_500_000,
            cached_input: 1_250_000,
            cache_creation_input: 3_000_000,
            output: 10_000_000,
        });
        // 70 plain, 20 cached, 10 created, 50 out: 175 + 25 + 30 + 500.
        assert_eq!(metric.cost(&usage(100, 20, 10, 50, 0), ASKED), 730);
        let metric = money(Price { input: 1, output: 1, ..Price::default() });
        assert_eq!(metric.cost(&usage(1, 0, 0, 1, 0), ASKED), 1);
        assert_eq!(metric.cost(&usage(0, 0, 0, 0, 0), ASKED), 0);
    }

    #[test]
    fn a_model_without_a_price_costs_nothing_and_a_star_prices_the_rest() {
        let prices = Prices::new(
            "USD",
            [("gpt-*", 1), ("gpt-4o", 2), ("gpt-4*", 3)]
                .map(|(name, input)| (name.to_owned(), Price { input, ..Price::default() })),
        );
        let of = |model| prices.of(model).map(|price| price.input);
        assert_eq!([of("gpt-4o"), of("gpt-4o-mini"), of("claude")], [Some(2), Some(1), None]);
        let metric = Metric::Money(Arc::new(prices));
        let claude = Asked { model: "claude", ..ASKED };
        assert_eq!(metric.cost(&usage(9, 0, 0, 9, 0), claude), 0);
        let most = AtMost { prompt: 9, output: 9, answers: 1 };
        assert_eq!(metric.bound(most, claude).at(9), 0);
    }

    #[test]
    fn a_total_that_is_not_reported_is_added_up() {
        let usage = TokenUsage { input: Some(3), output: Some(4), ..TokenUsage::default() };
        assert_eq!(Metric::Tokens(Class::Total).cost(&usage, ASKED), 7);
    }

    #[test]
    fn an_expression_that_fails_counts_all_tokens() {
        let cost =
            Cost::new(CostKind::Cel("total_tokens > 5u ? 1u / (total_tokens - total_tokens) : 0u")).unwrap();
        let metric = Metric::Cel(cost);
        assert_eq!(metric.cost(&usage(3, 0, 0, 4, 0), ASKED), 7);
        let most = AtMost { prompt: 3, output: 4, answers: 2 };
        assert_eq!(metric.bound(most, ASKED), Bound::fixed(11));
    }

    #[test]
    fn prices_beyond_what_a_store_computes_with_are_rounded_up() {
        let PerOutput { numerator, denominator } = bound(0, 128 * 1_000_000_001, 1_000_000).per_output;
        assert!(u128::from(numerator) <= MAX_FACTOR);
        assert!(u128::from(numerator) * 1_000_000 >= 128 * 1_000_000_001 * u128::from(denominator));
        assert_eq!(bound(0, 3, 1).per_output, PerOutput { numerator: 3, denominator: 1 });
        assert_eq!(bound(0, MAX_FACTOR + 1, 1), Bound::fixed(MAX_AMOUNT));
    }

    fn metrics() -> Vec<Metric> {
        let weights = "input_tokens + 3u * output_tokens + 2u * cached_input_tokens + 5u * reasoning_tokens + cache_creation_input_tokens";
        let mut metrics: Vec<Metric> = [
            Class::Input,
            Class::CachedInput,
            Class::CacheCreationInput,
            Class::Output,
            Class::Total,
            Class::Reasoning,
        ]
        .map(Metric::Tokens)
        .to_vec();
        metrics.extend([Metric::Requests, Metric::Cel(Cost::new(CostKind::Cel(weights)).unwrap())]);
        metrics
    }

    proptest! {
        #[test]
        fn no_estimate_or_report_is_too_large(
            prompt in any::<u64>(),
            output in any::<u64>(),
            answers in any::<u64>(),
            counts in prop::array::uniform6(prop::option::of(any::<u64>())),
        ) {
            let [input, cached_input, cache_creation_input, out, total, reasoning] = counts;
            let used =
                TokenUsage { input, cached_input, cache_creation_input, output: out, total, reasoning };
            let dear = Price { input: MAX_PRICE, cached_input: 0, cache_creation_input: MAX_PRICE, output: MAX_PRICE };
            for metric in metrics().into_iter().chain([money(dear), Metric::InFlight]) {
                let bound = metric.bound(AtMost { prompt, output, answers }, ASKED);
                prop_assert!(bound.at(output) <= MAX_AMOUNT && metric.cost(&used, ASKED) <= MAX_AMOUNT);
                let PerOutput { numerator, denominator } = bound.per_output;
                prop_assert!(u128::from(numerator) <= MAX_FACTOR && denominator > 0 && u128::from(denominator) <= MAX_FACTOR);
            }
        }

        #[test]
        fn what_stays_within_the_estimate_costs_no_more_than_the_bound(
            prompt in 0_u64..1_000_000,
            cap in 0_u64..100_000,
            answers in 1_u64..10,
            parts in prop::array::uniform5(0.0_f64..=1.0),
            prices in prop::array::uniform4(prop_oneof![0_u64..30_000_000, 0..=MAX_PRICE]),
        ) {
            let share = |of: u64, part: usize| (of as f64 * parts[part]) as u64;
            let input = share(prompt, 0);
            let cached = share(input, 1);
            let created = share(input - cached, 2);
            let output = share(cap * answers, 3);
            let used = usage(input, cached, created, output, share(output, 4));
            let [input, cached_input, cache_creation_input, output] = prices;
            let most = AtMost { prompt, output: cap, answers };
            let price = Price { input, cached_input, cache_creation_input, output };
            for metric in metrics().into_iter().chain([money(price)]) {
                let (bound, cost) = (metric.bound(most, ASKED).at(cap), metric.cost(&used, ASKED));
                prop_assert!(cost <= bound, "{metric:?}: {cost} > {bound}");
            }
        }
    }
}
