use proptest::prelude::*;

use super::*;

const USAGE: TokenUsage = TokenUsage {
    input: Some(100),
    cached_input: Some(20),
    cache_creation_input: Some(3),
    output: Some(40),
    total: Some(140),
    reasoning: None,
};

fn facts(usage: &TokenUsage) -> CostFacts<'_> {
    CostFacts { model: "gpt-5", backend: "ns/b/route/r/rule/0/ref/0", route_name: "ns/r", usage }
}

fn cel(expression: &str) -> Result<u64, CostError> {
    Cost::new(CostKind::Cel(expression))?.evaluate(&facts(&USAGE))
}

#[test]
fn token_classes() {
    for (kind, expected) in [
        (CostKind::Input, 100),
        (CostKind::CachedInput, 20),
        (CostKind::CacheCreationInput, 3),
        (CostKind::Output, 40),
        (CostKind::Total, 140),
        (CostKind::Reasoning, 0),
    ] {
        assert_eq!(Cost::new(kind).unwrap().evaluate(&facts(&USAGE)), Ok(expected), "{kind:?}");
    }
}

#[test]
fn expressions_see_every_variable() {
    for (expression, expected) in [
        ("input_tokens * 2u + output_tokens", 240),
        ("input_tokens - cached_input_tokens + cache_creation_input_tokens", 83),
        ("total_tokens + reasoning_tokens", 140),
        ("model == 'gpt-5' ? 7u : 1u", 7),
        ("backend == 'ns/b/route/r/rule/0/ref/0' && route_name == 'ns/r' ? 7u : 1u", 7),
        ("model.startsWith('gpt') ? input_tokens : 0u", 100),
        ("uint(double(input_tokens) * 1.5)", 150),
        ("model in ['a', 'gpt-5'] ? 1u : 2u", 1),
        ("['a', 'gpt'].exists(prefix, model.startsWith(prefix)) ? 1u : 2u", 1),
        ("12", 12),
        ("18446744073709551615u", u64::MAX),
    ] {
        assert_eq!(cel(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn what_fails_for_zeros_is_refused() {
    for expression in [
        "100u / input_tokens",
        "int(input_tokens) - 1",
        "input_tokens * 2",
        "model",
        "1.5",
        "true",
        "nothing()",
    ] {
        assert!(matches!(cel(expression), Err(CostError::DryRun(_))), "{expression}: {:?}", cel(expression));
    }
    assert_eq!(cel("input_tokens == 0u ? 0u : 1000u / input_tokens"), Ok(10));
}

#[test]
fn what_fails_for_the_facts_is_an_error_and_no_panic() {
    assert!(matches!(cel("input_tokens * 18446744073709551615u"), Err(CostError::Evaluation(_))));
    assert!(matches!(cel("cached_input_tokens - output_tokens"), Err(CostError::Evaluation(_))));
    assert_eq!(cel("0 - int(input_tokens)"), Err(CostError::NotACount("-100".to_owned())));
}

#[test]
fn unknown_variables_are_found_on_branches_not_taken() {
    for expression in ["model == '' ? 0u : prompt_tokens", "[1].map(x, x)[0] + x", "[prompt_tokens].size()"] {
        assert!(matches!(cel(expression), Err(CostError::UnknownVariable { .. })), "{expression}");
    }
    let error = cel("prompt_tokens").unwrap_err().to_string();
    assert!(error.contains("`prompt_tokens` is not a variable") && error.contains("input_tokens"), "{error}");
}

#[test]
fn syntax_errors_say_where() {
    let Err(CostError::Syntax { line, column, .. }) = cel("input_tokens +\n * 2u") else {
        panic!("no syntax error")
    };
    assert_eq!((line, column), (2, 2));
    for expression in ["", "'abc", "1 +", "\0", "'\\ud800'", "0xffffffffffffffffffffu", "a b"] {
        assert!(
            matches!(cel(expression), Err(CostError::Syntax { .. })),
            "{expression:?}: {:?}",
            cel(expression)
        );
    }
}

#[test]
fn macros_do_not_nest() {
    for expression in ["[1].map(x, [1].map(y, y)).size()", "[1].map(x, x + x).map(y, y + y).size()"] {
        assert_eq!(cel(expression), Err(CostError::NestedMacros), "{expression}");
    }
}

#[test]
fn size_is_bounded() {
    assert!(matches!(cel(&" ".repeat(MAX_LENGTH + 1)), Err(CostError::TooLong { .. })));
    assert_eq!(cel(&format!("1{}", "+1".repeat(MAX_OPERATORS + 1))), Err(CostError::TooComplex));
    assert_eq!(cel(&format!("1{}", "+1".repeat(MAX_OPERATORS))), Ok(1 + MAX_OPERATORS as u64));
}

/// The stack of a test thread is as large as that of a worker: the deepest shapes that are accepted must fit.
#[test]
fn deep_expressions_fit_the_stack() {
    let nest =
        |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    let chain = "+1".repeat(200);
    for expression in [
        nest("(", ")", 500),
        nest("(", ")", 90),
        nest("[", "]", 90),
        nest("{1:", "}", 90),
        nest("int(", ")", 90),
        nest("-", "", 500),
        nest("!", "", 500),
        format!("{}{chain}", nest("int(", ")", 90)),
        format!("{}1{chain}{}", "int(".repeat(90), ")".repeat(90)),
        format!("{}1{chain}{}", "[".repeat(90), "]".repeat(90)),
        format!("{}1", "true ? 1 : ".repeat(90)),
        format!("model{}", ".a".repeat(500)),
        format!("model{}", "[0]".repeat(500)),
        format!("true{} ? 1 : 2", " && true".repeat(500)),
    ] {
        let _ = cel(&expression);
    }
}

#[test]
fn debug_output_names_the_expression() {
    assert_eq!(format!("{:?}", Cost::new(CostKind::Cel("1u")).unwrap()), "Cost::Cel(\"1u\")");
    assert_eq!(format!("{:?}", Cost::new(CostKind::Total).unwrap()), "Cost::Total");
}

mod sets {
    use super::*;

    fn number(value: u64) -> Cost {
        Cost::new(CostKind::Cel(&format!("{value}u"))).unwrap()
    }

    fn cost(key: &str, value: u64, backend: Option<&str>, model: Option<&str>) -> RouteCost {
        let owned = |text: &str| text.to_owned();
        RouteCost {
            metadata_key: key.to_owned(),
            cost: number(value),
            backend: backend.map(owned),
            model: model.map(owned),
        }
    }

    fn numbers(set: &CostSet) -> Vec<(&str, u64)> {
        set.evaluate(&facts(&USAGE)).into_iter().map(|(key, cost)| (key, cost.unwrap())).collect()
    }

    #[test]
    fn route_costs_apply_by_backend_and_model() {
        let route = vec![
            cost("any", 1, None, None),
            cost("backend", 2, Some("ns/b"), None),
            cost("model", 3, None, Some("gpt-5")),
            cost("both", 4, Some("ns/b"), Some("gpt-5")),
            cost("other-backend", 5, Some("ns/bb"), None),
            cost("prefix-of-backend", 6, Some("ns"), None),
            cost("other-model", 7, Some("ns/b"), Some("gpt-4")),
        ];
        let set = CostSet { route, global: Vec::new() };
        assert_eq!(numbers(&set), [("any", 1), ("backend", 2), ("model", 3), ("both", 4)]);
    }

    #[test]
    fn global_costs_fill_the_keys_that_are_left() {
        let set = CostSet {
            route: vec![
                cost("a", 1, None, None),
                cost("b", 2, None, Some("other")),
                cost("a", 3, None, None),
            ],
            global: vec![
                ("a".to_owned(), number(10)),
                ("b".to_owned(), number(20)),
                ("c".to_owned(), number(30)),
            ],
        };
        assert_eq!(numbers(&set), [("a", 3), ("b", 20), ("c", 30)]);
        assert!(!set.is_empty() && CostSet::default().is_empty());
    }

    #[test]
    fn a_failing_cost_leaves_the_others() {
        let mut failing = cost("a", 1, None, None);
        failing.cost = Cost::new(CostKind::Cel("1u - input_tokens + 1u - 1u")).unwrap();
        let route = vec![failing, cost("b", 2, None, None)];
        let set = CostSet { route, global: vec![("a".to_owned(), number(9))] };
        let results = set.evaluate(&facts(&USAGE));
        assert!(matches!(results[0], ("a", Err(CostError::Evaluation(_)))), "{results:?}");
        assert_eq!(results[1], ("b", Ok(2)));
    }
}

proptest! {
    #[test]
    fn hostile_expressions_never_panic(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "input_tokens", "model", "1u", "-1", "1.5", "'x'", "(", ")", "[", "]", "{", "}", ":", ",", ".", "?",
                    "+", "-", "*", "/", "%", "&&", "||", "!", "==", "<", " in ", "size", "map", "exists", "has", "uint",
                    "matches", "x", "\\", "\"", "//", "\n", "é", "0x", "9223372036854775808", "b'", "r'", "`",
                ]).prop_map(str::to_owned),
                "\\PC{0,3}",
            ],
            0..20,
        ),
        input in any::<u64>(),
    ) {
        if let Ok(cost) = Cost::new(CostKind::Cel(&pieces.concat())) {
            let usage = TokenUsage { input: Some(input), ..TokenUsage::default() };
            let _ = cost.evaluate(&facts(&usage));
        }
    }
}
