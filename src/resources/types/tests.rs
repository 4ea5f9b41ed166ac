//! Tests of the shared value types.

use proptest::prelude::*;

use super::*;

#[test]
fn quantities_are_those_of_kubernetes() {
    for (text, expected) in [
        ("50Mi", 50 << 20),
        ("32768", 32768),
        ("1G", 1_000_000_000),
        ("1.5Ki", 1536),
        ("0.1Ki", 103),
        ("2k", 2000),
        ("1e3", 1000),
        ("5E3", 5000),
        ("1E", 1_000_000_000_000_000_000),
        (".5k", 500),
        ("0", 0),
    ] {
        assert_eq!(text.parse::<Quantity>(), Ok(Quantity(expected)), "{text}");
    }
    for text in [
        "",
        "Mi",
        "50 Mi",
        "50MiB",
        "-1",
        "1.2.3",
        ".",
        "1e99",
        "99999999999Ei",
        "18446744073709551616",
        "½",
        "1é",
    ] {
        assert!(text.parse::<Quantity>().is_err(), "{text}");
    }
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    for (text, expected) in [
        ("30s", 30_000),
        ("1m30s", 90_000),
        ("500ms", 500),
        ("1h1m1s1ms", 3_661_001),
        ("0s", 0),
        ("99999h", 359_996_400_000),
    ] {
        assert_eq!(
            text.parse::<GatewayDuration>(),
            Ok(GatewayDuration(Duration::from_millis(expected))),
            "{text}"
        );
    }
    for text in ["", "30", "s", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", "1 s", "1é"] {
        assert!(text.parse::<GatewayDuration>().is_err(), "{text}");
    }
}

#[test]
fn selector_conditions_must_all_hold() {
    let labels = [("a".to_owned(), "1".to_owned())].into();
    let selector = |json: &str| serde_json::from_str::<LabelSelector>(json).unwrap();
    for (json, expected) in [
        ("{}", true),
        (r#"{"matchLabels": {"a": "1"}}"#, true),
        (r#"{"matchLabels": {"a": "1", "b": "2"}}"#, false),
        (r#"{"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}"#, true),
        (r#"{"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}"#, false),
        (r#"{"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}"#, true),
        (
            r#"{"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]}"#,
            false,
        ),
        (r#"{"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}"#, true),
    ] {
        assert_eq!(selector(json).matches(&labels), expected, "{json}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_them_panic(text in "\\PC{0,40}|[0-9.]{0,30}[a-zA-Z]{0,3}") {
        let _ = text.parse::<Quantity>();
        let _ = text.parse::<GatewayDuration>();
    }
}

#[test]
fn decimals_are_exact() {
    for (text, millionths) in [
        ("0", 0),
        ("25", 25_000_000),
        ("25.00", 25_000_000),
        ("0.15", 150_000),
        ("0.000001", 1),
        ("200k", 200_000_000_000),
        ("1.5M", 1_500_000_000_000),
    ] {
        assert_eq!(text.parse::<Decimal>().map(|Decimal(value)| value), Ok(millionths), "{text}");
    }
    for text in ["", ".", "1.", ".5", "-1", "1.2.3", "1e99", "0.0000001", "1 USD", "999999999999999999999999"]
    {
        assert!(text.parse::<Decimal>().is_err(), "{text}");
    }
}
