//! Quotas: from resources to what a request claims.

use super::*;
use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::quota::{Estimate, Facts, Group, Mode, OnAway, OnExpiry, Prepared, ReservationId, Stage, Window};
use crate::runtime::Runtime;
use crate::tenant::Tenant;

const ID: ReservationId = ReservationId { process: 1, exchange: 1, part: 0 };
/// A Tuesday in November, 00:30:15 UTC.
const NOW: u64 = 1_795_480_215_000;

/// A request, as far as limits are for it.
struct Asked {
    tenant: Tenant,
    quota: Option<&'static str>,
    backend: String,
    model: &'static str,
    sent: &'static str,
    headers: Headers,
}

fn asked(backend: &str) -> Asked {
    Asked {
        tenant: Tenant::anonymous(),
        quota: None,
        backend: format!("default/{backend}/route/r/rule/0/ref/0"),
        model: "m",
        sent: "m",
        headers: [(":method", "POST"), (":path", "/v1/chat/completions")].into_iter().collect(),
    }
}

impl Asked {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push(name.into(), value.into());
        self
    }

    fn sent(self, sent: &'static str) -> Self {
        Self { sent, ..self }
    }

    fn of(self, organisation: &str, key: &str) -> Self {
        let tenant = Tenant { organisation: Tenant::part(organisation), team: None, key: Tenant::part(key) };
        Self { tenant, ..self }
    }

    fn ask(&self, compiled: &Compiled) -> Option<Prepared> {
        let (runtime, problems) = Runtime::new(compiled.config.clone());
        assert_eq!(problems, []);
        let facts = Facts {
            tenant: &self.tenant,
            key_quota: self.quota,
            gateway: Some("default/gw"),
            route: Some("default/r"),
            backend: Some(&self.backend),
            asked_model: self.model,
            sent_model: Some(self.sent),
            headers: &self.headers,
            endpoint: Endpoint::ChatCompletions,
            source: Some([10, 0, 0, 1].into()),
        };
        let estimate = Estimate { prompt: 10, output: Some(20), unsaid: false, answers: 1 };
        runtime.quotas().prepare(Stage::Whole, &facts, estimate, ID, NOW)
    }

    /// Names of the limits and the most the request may cost by each.
    fn claims(&self, compiled: &Compiled) -> Vec<String> {
        let Some(prepared) = self.ask(compiled) else { return Vec::new() };
        let claims = prepared.limits.iter().zip(&prepared.ask.claims);
        claims.map(|(limit, claim)| format!("{} {}", limit.name, claim.bound.at(20))).collect()
    }

    fn subjects(&self, compiled: &Compiled) -> Vec<String> {
        let prepared = self.ask(compiled).expect("limits");
        prepared.ask.claims.iter().map(|claim| claim.bucket.subject.to_string()).collect()
    }
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: QuotaPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: a}}]
{spec}
"
    )
}

fn limit(name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]
{spec}
"
    )
}

/// Backends `a` and `b`, a rule for model `m` to `a`, and more.
fn with(more: &str) -> String {
    GATEWAY.to_owned()
        + &backend("a", "")
        + &backend("b", "")
        + &route("r", &model_rule("m", "{name: a}"))
        + more
}

#[test]
fn a_model_s_buckets_are_all_charged_and_one_with_room_is_enough() {
    let compiled = compile_clean(&with(&policy(
        "p",
        "
  perModelQuotas:
  - modelName: m
    quota:
      costExpression: input_tokens + 3u * output_tokens
      defaultBucket: {limit: 100, duration: 1m}
      bucketRules:
      - clientSelectors: [{headers: [{name: X-Tier, value: gold}]}]
        quota: {limit: 1000, duration: 1h}
      - quota: {limit: 5, duration: 1d}
        shadowMode: true
",
    )));
    let gold = asked("a").with("x-tier", "gold");
    assert_eq!(gold.claims(&compiled), ["p/m/rule-0 70", "p/m/rule-1 70", "p/m/default 70"]);
    assert_eq!(asked("a").claims(&compiled), ["p/m/rule-1 70", "p/m/default 70"]);
    // Of another model, another backend, nothing is charged.
    assert_eq!(asked("a").sent("other").claims(&compiled), [""; 0]);
    assert_eq!(asked("b").claims(&compiled), [""; 0]);
    let prepared = gold.ask(&compiled).expect("limits");
    assert_eq!(prepared.ask.groups, [Group::All, Group::Any]);
    assert!(prepared.ask.claims.iter().all(|claim| claim.group == 1 && claim.mode == Mode::Record));
    let shadow: Vec<bool> = prepared.ask.claims.iter().map(|claim| claim.shadow).collect();
    assert_eq!(shadow, [false, true, false]);
    let hour =
        Window::Aligned { start: 1_795_478_400_000, end: 1_795_482_000_000, next_end: 1_795_485_600_000 };
    assert_eq!((prepared.ask.claims[0].window, prepared.ask.claims[0].amount), (hour, 1000));
    assert_eq!(&*prepared.ask.claims[0].bucket.limit, "q/default/a/m/rule-0:cel:1h");
    assert_eq!(prepared.on_away, OnAway::Open);
}

#[test]
fn a_quota_is_held_to_afterwards_as_upstream_does_unless_it_says_otherwise() {
    let mode = |more: &str| {
        let spec = format!("  serviceQuota: {{quota: {{limit: 9, duration: 1d}}}}\n{more}");
        let prepared = asked("a").ask(&compile_clean(&with(&policy("p", &spec)))).expect("limits");
        prepared.ask.claims[0].mode
    };
    assert_eq!(mode(""), Mode::Record);
    assert_eq!(mode("  admission: Record\n"), Mode::Record);
    assert_eq!(mode("  admission: Reserve\n"), Mode::Reserve);
}

#[test]
fn the_quota_of_a_service_is_for_all_its_models_that_have_none_of_their_own() {
    let service = policy("p", "  serviceQuota: {quota: {limit: 9, duration: 1d}}\n");
    let models =
        policy("q", "  perModelQuotas: [{modelName: m, quota: {defaultBucket: {limit: 1, duration: 1s}}}]\n");
    let compiled = compile_clean(&with(&(service + &models)));
    assert_eq!(asked("a").sent("other").claims(&compiled), ["p/service 30"]);
    assert_eq!(asked("a").sent("third").subjects(&compiled), [""]);
    assert_eq!(asked("a").claims(&compiled), ["q/m/default 30"]);
}

#[test]
fn of_several_policies_the_first_by_name_counts_model_by_model() {
    let of = |name: &str, models: &str| {
        let models = models.split(' ').map(|model| {
            format!("  - {{modelName: {model}, quota: {{defaultBucket: {{limit: 1, duration: 1s}}}}}}\n")
        });
        policy(name, &format!("  perModelQuotas:\n{}", models.collect::<String>()))
    };
    let compiled = compile_text(&with(&(of("late", "m k") + &of("early", "m"))));
    assert_eq!(asked("a").claims(&compiled), ["early/m/default 30"]);
    assert_eq!(asked("a").sent("k").claims(&compiled), ["late/k/default 30"]);
    let messages = messages(&compiled);
    assert!(
        messages.contains(
            "its quota of model `m` has no effect on backend a: QuotaPolicy default/early comes first"
        ),
        "{messages}"
    );
}

#[test]
fn what_quotas_of_models_cost_is_published_as_upstream_does() {
    let models = "
  perModelQuotas:
  - modelName: m
    quota: {costExpression: 2u * output_tokens, defaultBucket: {limit: 1, duration: 1s}, bucketRules: [{quota: {limit: 1, duration: 1s}}]}
  - {modelName: k, quota: {defaultBucket: {limit: 1, duration: 1s}}}
";
    let compiled = compile_clean(&with(&policy("p", models)));
    let cost = |model: &str, kind: &str| serde_json::json!({"routeName": "default/r", "backend": "default/a", "model": model, "metadataKey": "quota_cost", "type": kind});
    let mut first = cost("m", "CEL");
    first["cel"] = "2u * output_tokens".into();
    let written = serde_json::to_value(&compiled.config.llm_request_costs).expect("JSON");
    assert_eq!(written, serde_json::json!([first, cost("k", "TotalToken")]));
    // The route's own word counts.
    let own = "\n  llmRequestCosts: [{metadataKey: quota_cost, type: InputToken}]\n";
    let rules = route("r", &(model_rule("m", "{name: a}") + own));
    let compiled = compile_clean(&(GATEWAY.to_owned() + &backend("a", "") + &rules + &policy("p", models)));
    assert_eq!(compiled.config.llm_request_costs.len(), 1);
}

#[test]
fn each_distinct_value_has_a_bucket_and_requests_without_one_do_not_fall_under_the_rule() {
    let compiled = compile_clean(&with(&policy(
        "p",
        "
  perModelQuotas:
  - modelName: m
    quota:
      bucketRules:
      - clientSelectors: [{headers: [{name: x-user, type: Distinct}, {name: x-tier, value: gold, invert: true}]}]
        quota: {limit: 1, duration: 1m}
",
    )));
    let of = |user| asked("a").with("x-user", user);
    assert_eq!(asked("a").claims(&compiled), [""; 0]);
    assert_eq!(of("u").with("x-tier", "gold").claims(&compiled), [""; 0]);
    assert_eq!(of("u").claims(&compiled), ["p/m/rule-0 30"]);
    assert_eq!(of("u").subjects(&compiled), of("u").with("x-other", "1").subjects(&compiled));
    assert_ne!(of("u").subjects(&compiled), of("v").subjects(&compiled));
    let prepared = of("u").ask(&compiled).expect("limits");
    assert_eq!(prepared.ask.claims[0].most_subjects, Some(10_000));
}

#[test]
fn selectors_see_methods_paths_parameters_and_addresses() {
    let selects = |selector: &str| {
        let compiled = compile_clean(&with(&policy(
            "p",
            &format!(
                "
  perModelQuotas:
  - modelName: m
    quota:
      bucketRules:
      - clientSelectors: [{selector}]
        quota: {{limit: 1, duration: 1m}}
"
            ),
        )));
        !asked("a").claims(&compiled).is_empty()
    };
    for (selector, selected) in [
        ("{methods: [{value: POST}, {value: GET}]}", true),
        ("{methods: [{value: GET}]}", false),
        ("{methods: [{value: GET, invert: true}]}", true),
        ("{methods: [{value: POST, invert: true}]}", false),
        ("{methods: [{value: POST, invert: true}, {value: GET, invert: true}]}", true),
        ("{methods: [{value: POST, invert: true}, {value: POST}]}", true),
        ("{path: {value: /v1}}", true),
        ("{path: {type: Exact, value: /v1}}", false),
        ("{path: {type: RegularExpression, value: '/v1/.*', invert: true}}", false),
        ("{queryParams: [{name: q, value: '1'}]}", false),
        ("{queryParams: [{name: q, value: '1', invert: true}]}", true),
        ("{sourceCIDR: {value: 10.9.9.9/8}}", true),
        ("{sourceCIDR: {value: 10.0.0.0/8, type: Distinct, invert: true}}", false),
        ("{sourceCIDR: {value: 11.0.0.0/8}}", false),
    ] {
        assert_eq!(selects(selector), selected, "{selector}");
    }
}

#[test]
fn limits_of_a_gateway_say_everything_that_limits_can_say() {
    let compiled = compile_clean(&with(&limit(
        "tenants",
        "
  onStoreFailure: Closed
  onLeaseExpiry: Refund
  output: {default: 500, clamp: true, minimum: 5, models: [{model: 'm*', tokens: 50}]}
  prices: {currency: EUR, models: [{model: m, input: \"2.50\", cachedInput: \"1.25\", output: 10}]}
  limits:
  - {name: tpm, type: TotalToken, amount: 200k, window: {every: 1m}, per: [Key]}
  - {name: budget, type: Money, amount: \"25.00\", window: {calendar: Month, timeZone: Europe/Berlin}, per: [Organisation]}
  - {name: rolling, type: Request, amount: 5, window: {rolling: 1h30m}, mode: Record, shadow: true}
  - {name: parallel, type: InFlight, amount: 2, per: [Key], perHeaders: [X-Job]}
",
    )));
    let prepared = asked("a").of("acme", "ci").ask(&compiled).expect("limits");
    let told: Vec<String> = prepared.limits.iter().map(|limit| limit.to_string()).collect();
    assert_eq!(
        told,
        [
            "200000 tokens in 1m for each key",
            "25 EUR in a calendar month (Europe/Berlin) for each organisation",
            "5 requests in any 90m, charged at the end, only watched",
            "2 requests at the same time for each key and value of header x-job",
        ]
    );
    // 10 * 2.5 + 20 * 10 millionths.
    let bounds: Vec<u64> = prepared.ask.claims.iter().map(|claim| claim.bound.at(20)).collect();
    assert_eq!(bounds, [30, 225, 1, 1]);
    let month =
        Window::Aligned { start: 1_793_487_600_000, end: 1_796_079_600_000, next_end: 1_798_758_000_000 };
    let windows: Vec<Window> = prepared.ask.claims.iter().map(|claim| claim.window).collect();
    assert_eq!(windows[1..], [month, Window::Rolling { length: 5_400_000 }, Window::InFlight]);
    assert_eq!((prepared.on_away, prepared.clamp), (OnAway::Closed, true));
    assert_eq!((prepared.ask.output.wanted, prepared.ask.output.least), (20, 5));
    assert_eq!(prepared.ask.claims[0].on_expiry, OnExpiry::Refund);
    let most: Vec<_> = prepared.ask.claims.iter().map(|claim| claim.most_subjects).collect();
    assert_eq!(most, [None, None, None, Some(10_000)]);
    let other = asked("a").of("other", "ci").subjects(&compiled);
    let ours = asked("a").of("acme", "ci").subjects(&compiled);
    assert!(ours[0] != other[0] && ours[1] != other[1] && ours[2] == other[2], "{ours:?} {other:?}");
}

#[test]
fn a_limit_is_for_the_requests_that_it_matches() {
    let claims = |matching: &str, asked: Asked| {
        let spec = format!(
            "  limits: [{{name: l, type: Request, amount: 1, window: {{every: 1m}}, match: {matching}}}]"
        );
        !asked.claims(&compile_clean(&with(&limit("p", &spec)))).is_empty()
    };
    let acme = || asked("a").of("acme", "ci").with("x-tier", "gold-plus");
    for (matching, asked, selected) in [
        ("{tenants: [{organisation: acme}]}", acme(), true),
        ("{tenants: [{organisation: other}, {anonymous: true}]}", acme(), false),
        ("{tenants: [{anonymous: true}]}", asked("a"), true),
        ("{keyQuota: small}", acme(), false),
        ("{keyQuota: small}", Asked { quota: Some("small"), ..acme() }, true),
        ("{models: ['m*'], backendModels: [m]}", acme(), true),
        ("{backendModels: [other]}", acme(), false),
        ("{headers: [{name: X-Tier, type: Prefix, value: gold}]}", acme(), true),
        ("{headers: [{name: x-tier, value: gold}]}", acme(), false),
        ("{headers: [{name: x-tier, type: RegularExpression, value: 'gold.*'}]}", acme(), true),
        ("{headers: [{name: x-tier, type: Present, invert: true}]}", acme(), false),
        ("{networks: [192.168.0.0/16, 10.0.0.0/8]}", acme(), true),
        ("{networks: [192.168.0.0/16]}", acme(), false),
    ] {
        assert_eq!(claims(matching, asked), selected, "{matching}");
    }
}

#[test]
fn what_is_not_there_cannot_be_limited() {
    let unknown =
        policy("p", "  serviceQuota: {quota: {limit: 1, duration: 1s}}").replace("name: a}]", "name: aa}]");
    let gone = limit("l", "  limits: [{name: l, type: Request, amount: 1, window: {every: 1m}}]")
        .replace("name: gw", "name: gww");
    let compiled = compile_text(&with(&(unknown + &gone)));
    assert!(compiled.config.quotas.is_empty());
    let messages = messages(&compiled);
    for part in [
        "there is no AIServiceBackend default/aa, so that this limits nothing",
        "there is no Gateway default/gww, so that this limits nothing",
        "did you mean `gw`?",
    ] {
        assert!(messages.contains(part), "{messages}");
    }
    assert!(compiled.diagnostics.has_errors());
}

#[test]
fn policies_that_limit_nothing_are_told() {
    let empty = policy("p", "  perModelQuotas: [{modelName: m, quota: {}}]") + &policy("q", "");
    let compiled = compile_text(&with(&empty));
    let messages = messages(&compiled);
    for part in ["the model `m` has no bucket", "this policy limits nothing"] {
        assert!(messages.contains(part), "{messages}");
    }
}

#[test]
fn models_that_cost_nothing_are_told() {
    let spec = |model: &str| {
        format!(
            "  prices: {{models: [{{model: '{model}', input: 1, output: 1}}]}}\n  limits: [{{name: l, type: Money, amount: 1, window: {{every: 1m}}}}]"
        )
    };
    let compiled = compile_text(&with(&limit("p", &spec("other"))));
    assert!(messages(&compiled).contains("requests for `m` cost nothing"), "{}", messages(&compiled));
    compile_clean(&with(&limit("p", &spec("*"))));
    // A route that is not limited has no prices to miss.
    let elsewhere =
        limit("p", &spec("other")).replace("kind: Gateway, name: gw", "kind: AIServiceBackend, name: b");
    compile_clean(&with(&elsewhere.replace("gateway.networking.k8s.io", "aigateway.envoyproxy.io")));
}

/// Two backends that one reply could serve.
fn alike(more: &str) -> Compiled {
    let both = "{name: a}, {name: b}";
    let text = GATEWAY.to_owned()
        + &backend("a", "")
        + &backend("b", "")
        + &route("r", &model_rule("m", both))
        + more;
    compile_clean(&text)
}

#[test]
fn a_rule_is_served_per_attempt_where_limits_tell_its_backends_apart() {
    let per_attempt = |compiled: &Compiled| !only_gateway(compiled).rules[0].attempts.is_empty();
    let by = |per: &str| {
        limit(
            "l",
            &format!(
                "  limits: [{{name: l, type: Request, amount: 1, window: {{every: 1m}}, per: [{per}]}}]"
            ),
        )
    };
    let cel = |cel: &str| {
        limit(
            "l",
            &format!("  limits: [{{name: l, type: CEL, cel: '{cel}', amount: 1, window: {{every: 1m}}}}]"),
        )
    };
    let quota = policy("p", "  serviceQuota: {quota: {limit: 1, duration: 1s}}");
    for (more, expected) in [
        ("", false),
        (by("Key").as_str(), false),
        (by("Backend").as_str(), true),
        (cel("input_tokens").as_str(), false),
        (cel("backend == \"x\" ? 1u : 2u").as_str(), true),
        (quota.as_str(), true),
    ] {
        assert_eq!(per_attempt(&alike(more)), expected, "{more}");
    }
    // Envoy is told another route then, which no request of the former may take.
    let key = |more: &str| only_gateway(&alike(more)).rules[0].routing_key.clone();
    assert_ne!(key(""), key(&quota));
}

#[test]
fn a_backend_of_another_namespace_is_not_taken_for_one_of_the_same_name() {
    let elsewhere = |text: &str| text.replace("metadata: {name: a}", "metadata: {name: a, namespace: other}");
    let grant = "
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec:
  from: [{group: aigateway.envoyproxy.io, kind: AIGatewayRoute, namespace: default}]
  to: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend}]
";
    let rules = model_rule("m", "{name: a, namespace: other}") + &model_rule("k", "{name: a}");
    let quota = |namespace: &str, name: &str| {
        policy(name, "  serviceQuota: {quota: {limit: 1, duration: 1s}}").replace(
            &format!("metadata: {{name: {name}}}"),
            &format!("metadata: {{name: {name}, namespace: {namespace}}}"),
        )
    };
    let text = GATEWAY.to_owned()
        + &backend("a", "")
        + &elsewhere(&backend("a", ""))
        + &route("r", &rules)
        + grant
        + &quota("other", "theirs")
        + &quota("default", "ours");
    let compiled = compile_clean(&text);
    let of = |rule: usize| {
        let backend = format!("default/a/route/r/rule/{rule}/ref/0");
        Asked { backend, ..asked("a") }.claims(&compiled)
    };
    assert_eq!(of(0), ["theirs/service 30"]);
    assert_eq!(of(1), ["ours/service 30"]);
}

#[test]
fn the_processor_s_document_survives_being_written_and_read() {
    let compiled = compile_clean(&with(&limit(
        "l",
        "
  prices: {models: [{model: '*', input: 1, output: 1}]}
  limits:
  - {name: a, type: Money, amount: 1, window: {calendar: Week}, per: [Model, Address], perHeaders: [x]}
  - {name: b, type: CEL, cel: total_tokens, amount: 1, window: {rolling: 7d}, match: {headers: [{name: h, value: z}]}}
",
    )));
    let written = serde_json::to_value(&compiled.config.quotas).expect("JSON");
    let read: Vec<config::Quota> = serde_json::from_value(written.clone()).expect("quotas");
    assert_eq!(read, compiled.config.quotas);
    assert_eq!(compiled.config.redacted()["quotas"], written);
}

#[test]
fn the_example_is_as_it_should_be() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = ["basic/basic.yaml", "tenants/tenants.yaml", "quota/quota.yaml"];
    let text = files.map(|file| std::fs::read_to_string(folder.join(file)).expect("an example"));
    let compiled = compile_clean(&text.join("\n---\n"));
    let limits = compiled.config.quotas.iter().flat_map(|quota| &quota.limits);
    let names: Vec<&str> = limits.map(|limit| limit.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "capacity/some-cool-self-hosted-model/rule-0",
            "capacity/some-cool-self-hosted-model/default",
            "tenants/requests",
            "tenants/tokens",
            "tenants/budget",
            "tenants/parallel",
            "tenants/experiment",
        ]
    );
    insta::assert_json_snapshot!("quotas_of_the_example", compiled.config.quotas);
}
