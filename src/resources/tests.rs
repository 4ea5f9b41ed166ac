//! Tests of the reader as a whole.

use std::{fs, path::PathBuf};

use super::{Memory, Snapshot, Source, parse};
use crate::diagnostics::Diagnostics;

/// The folder of test data beside the checkout, if it is there.
fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("AIGW_SHARED_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")), PathBuf::from);
    let folder = root.join(folder);
    let there = folder.is_dir();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{} is not there", folder.display());
        println!("SKIPPED: {} is not there", folder.display());
    }
    there.then_some(folder)
}

fn yaml_files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &PathBuf) -> (Snapshot, Diagnostics) {
    let name = path.file_name().unwrap().to_str().unwrap();
    parse([Source::new(name, fs::read_to_string(path).unwrap())], &|_| None)
}

#[test]
fn every_example_loads_without_errors() {
    for folder in ["examples", "seed"] {
        let Some(folder) = shared(folder) else { continue };
        for path in yaml_files(folder) {
            // Helm values are no resources.
            if path.to_str().unwrap().contains("values-addon") {
                continue;
            }
            let (_, findings) = read(&path);
            assert!(!findings.has_errors(), "{}:\n{}", path.display(), findings.render(false));
            println!("{}\n{}", path.display(), findings.render(false));
        }
    }
}

#[test]
fn walkthrough_basic_file_gives_at_most_two_warnings() {
    let Some(folder) = shared("examples/basic") else { return };
    let (snapshot, findings) = read(&folder.join("basic.yaml"));
    assert!(findings.len() <= 2, "{}", findings.render(false));
    let service = snapshot.services.get("default", "envoy-ai-gateway-basic-testupstream").unwrap();
    let deployment = snapshot.deployment_of(service).unwrap();
    assert!(deployment.spec.template.spec.containers[0].image.contains("/ai-gateway-testupstream"));
    let policy = snapshot.client_traffic_policies.get("default", "client-buffer-limit").unwrap();
    assert_eq!(policy.spec.connection.as_ref().unwrap().buffer_limit.unwrap().0, 50 << 20);
}

/// The verdicts are those of a real API server with the CRDs installed.
#[test]
fn verdicts_of_the_api_server_are_ours() {
    let Some(folder) = shared("crd-cases") else { return };
    let table = fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let mut judged = 0;
    for row in table.lines().skip(1) {
        let mut cells = row.split('\t');
        let (file, verdict) = (cells.next().unwrap(), cells.next().unwrap());
        let (_, findings) = read(&folder.join(file));
        assert_eq!(findings.has_errors(), verdict == "reject", "{file}:\n{}", findings.render(false));
        judged += 1;
    }
    assert!(judged > 28);
}

const ROUTE: &str = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata:
  name: r
spec:
  rules:
    - matches:
        - headers:
            - name: x-ai-eg-model
              value: m
      backendRefs:
        - name: b
";

fn messages(text: &str) -> String {
    let (_, findings) = Snapshot::parse(text);
    findings.iter().map(|finding| finding.render(false)).collect()
}

#[track_caller]
fn assert_says(text: &str, expected: &[&str]) {
    let said = messages(text);
    for expected in expected {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
}

fn with_env(text: &str) -> (Snapshot, String) {
    let environment = |name: &str| match name {
        "MODEL" => Some("gpt-4o".to_owned()),
        "PORT" => Some("8443".to_owned()),
        "EMPTY" => Some(String::new()),
        "EVIL" => Some("x\nspec: {rules: []}\n---\nkind: Secret".to_owned()),
        _ => None,
    };
    let (snapshot, findings) = parse([Source::new("in.yaml", text)], &environment);
    (snapshot, findings.render(false))
}

#[test]
fn defaults_of_the_api_are_applied() {
    let text = format!("{ROUTE}  parentRefs: [{{name: g}}]\n");
    let (snapshot, findings) = Snapshot::parse(&text);
    assert_eq!(findings, []);
    let route = snapshot.ai_gateway_routes.get("default", "r").unwrap();
    let backend = &route.spec.rules[0].backend_refs[0];
    assert_eq!((backend.weight, backend.priority), (1, 0));
    let parent = &route.spec.parent_refs[0];
    assert_eq!((parent.group.as_str(), parent.kind.as_str()), ("gateway.networking.k8s.io", "Gateway"));
    assert_eq!(route.spec.rules[0].matches[0].headers[0].kind, crate::config::HeaderMatchType::Exact);
    assert_eq!(route.spec.rules[0].models_owned_by, "Envoy AI Gateway");
}

#[test]
fn misspelt_field_is_named_with_the_nearest_right_one() {
    assert_says(
        &ROUTE.replace("value: m", "vlaue: m"),
        &[
            "error: unknown field `vlaue`",
            "--> input.yaml:11:15",
            "in AIGatewayRoute default/r: spec.rules[0].matches[0].headers[0].vlaue",
            "help: did you mean `value`?",
        ],
    );
}

#[test]
fn misspelt_field_is_not_reported_as_missing_as_well() {
    assert!(!messages(&ROUTE.replace("value: m", "vlaue: m")).contains("missing"));
    assert_says(&ROUTE.replace("value: m", "other: m"), &["missing field `value`"]);
}

#[test]
fn misplaced_field_is_sent_to_its_place() {
    assert_says(
        &ROUTE.replace("name: b", "name: b\n          timeouts: {request: 1s}"),
        &["unknown field `timeouts`", "it belongs in `spec.rules[]`; check the indentation"],
    );
}

#[test]
fn unlike_field_gets_the_list_of_fields() {
    assert_says(
        &ROUTE.replace("backendRefs:", "destination:"),
        &["known names: backendRefs, matches, modelsCreatedAt"],
    );
}

#[test]
fn all_problems_of_all_documents_are_found_at_once() {
    let broken = ROUTE.replace("name: b", "nome: b").replace("value: m", "value: 7");
    let said = messages(&format!("{broken}---{broken}---\n]broken\n---{ROUTE}"));
    assert_eq!(said.matches("unknown field `nome`").count(), 2, "{said}");
    assert_eq!(said.matches("expected a string, found the number 7").count(), 2, "{said}");
    assert_eq!(said.matches("not valid YAML").count(), 1, "{said}");
}

#[test]
fn document_with_an_error_is_left_out_and_the_others_stay() {
    let (snapshot, findings) = Snapshot::parse(&format!(
        "{ROUTE}---{}",
        ROUTE.replace("name: r", "name: s").replace("name: b", "nome: b")
    ));
    assert!(!findings.is_empty());
    assert!(snapshot.ai_gateway_routes.get("default", "r").is_some());
    assert!(snapshot.ai_gateway_routes.get("default", "s").is_none());
}

#[test]
fn wrong_enum_value_is_named_with_the_nearest_right_one() {
    assert_says(
        &ROUTE.replace("value: m", "value: m\n              type: RegularExpresion"),
        &[
            "`RegularExpresion` is not one of the values this field can have",
            "did you mean `RegularExpression`?",
        ],
    );
}

#[test]
fn ranges_lengths_and_patterns_hold() {
    assert_says(
        &ROUTE.replace("name: b", "name: b\n          weight: -1"),
        &["must be between 0 and 2147483647"],
    );
    assert_says(&ROUTE.replace("value: m", "value: ''"), &["must not be empty"]);
    assert_says(
        &ROUTE.replace("name: r\n", "name: Route_1\n"),
        &["`Route_1` has characters", "metadata.name"],
    );
    assert_says(&ROUTE.replace("rules:", "hostnames: ['a.*.b']\n  rules:"), &["spec.hostnames[0]"]);
    let rules = "    - {}\n".repeat(16);
    assert_says(
        &format!(
            "apiVersion: aigateway.envoyproxy.io/v1beta1\nkind: AIGatewayRoute\nmetadata: {{name: r}}\nspec:\n  rules:\n{rules}"
        ),
        &["has 16 items, but at most 15 are allowed"],
    );
}

#[test]
fn unknown_kind_group_and_version_are_told_apart() {
    assert_says(
        &ROUTE.replace("kind: AIGatewayRoute", "kind: AIGatewayRout"),
        &["unknown kind `AIGatewayRout`", "did you mean `AIGatewayRoute`?"],
    );
    assert_says(
        &ROUTE.replace("v1beta1", "v1"),
        &[
            "AIGatewayRoute has no version `v1`",
            "apiVersion: aigateway.envoyproxy.io/v1beta1` or `aigateway.envoyproxy.io/v1alpha1`",
        ],
    );
    assert_says(
        &ROUTE.replace("aigateway.envoyproxy.io", "gateway.envoyproxy.io"),
        &[
            "AIGatewayRoute is not a kind of the API group `gateway.envoyproxy.io`",
            "write `apiVersion: aigateway",
        ],
    );
    assert_says(
        "apiVersion: v1\nkind: Frobnicator\nmetadata: {name: x}\n",
        &["error: unknown kind `Frobnicator`"],
    );
    assert_says(
        "apiVersion: frob.example.com/v1\nkind: Frobnicator\nmetadata: {name: x}\n",
        &["warning: kind Frobnicator of `frob.example.com` is not known here"],
    );
}

#[test]
fn kind_without_meaning_is_a_warning_and_its_variables_are_left_alone() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: h}\nspec: {a: '${NOT_SET}'}\n";
    assert_says(text, &["warning: kind HTTPRoute has no meaning here yet and is ignored"]);
    assert!(!messages(text).contains("error"));
}

#[test]
fn field_without_meaning_is_a_warning_that_names_it() {
    let text = "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: c}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]
  http1: {enableTrailers: true}
";
    assert_says(
        text,
        &[
            "warning: `http1` has no meaning here yet and is ignored",
            "ClientTrafficPolicy default/c: spec.http1",
        ],
    );
    assert!(!messages(text).contains("error"));
}

#[test]
fn objects_need_kind_version_and_name() {
    assert_says("metadata: {name: x}\n", &["missing field `kind`", "missing field `apiVersion`"]);
    assert_says("apiVersion: v1\nkind: ConfigMap\n", &["missing field `metadata`"]);
    assert_says(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n",
        &["missing field `name`", "metadata.name"],
    );
    assert_says("- a\n", &["this document is no Kubernetes object"]);
    assert_says("kind: 3\napiVersion: v1\n", &["`kind` must be a string"]);
}

#[test]
fn same_name_twice_is_an_error_that_names_both_places() {
    let said = messages(&format!("{ROUTE}---{ROUTE}"));
    assert!(said.contains("AIGatewayRoute default/r is defined twice"), "{said}");
    assert!(
        said.contains("--> input.yaml:18:9") && said.contains("the first one is at input.yaml:5:9"),
        "{said}"
    );
}

#[test]
fn key_given_twice_is_an_error_that_names_both_places() {
    assert_says(
        &ROUTE.replace("value: m", "value: m\n              value: n"),
        &["`value` is given twice", "--> input.yaml:12:15", "the first one is at input.yaml:11:15"],
    );
}

#[test]
fn list_objects_are_flattened() {
    let text = "
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: other}, data: {k: 1}}
";
    let (snapshot, findings) = Snapshot::parse(text);
    assert_eq!(snapshot.config_maps.get("default", "a").unwrap().data["k"], "v");
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].resource.as_deref(), Some("ConfigMap other/b"));
}

#[test]
fn anchors_and_merge_keys_work_within_a_document() {
    let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: a, labels: &l {x: v}, annotations: {<<: *l, z: w}}
data: {k: &v some, j: *v}
";
    let (snapshot, findings) = Snapshot::parse(text);
    assert_eq!(findings, []);
    let map = snapshot.config_maps.get("default", "a").unwrap();
    assert_eq!(map.data["j"], "some");
    assert_eq!(map.metadata.annotations["x"], "v");
}

#[test]
fn fields_know_their_places() {
    let (snapshot, _) = Snapshot::parse(&format!(
        "{ROUTE}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  ca.crt: x\n"
    ));
    let route = snapshot.ai_gateway_routes.get("default", "r").unwrap();
    let place = |field: &str| route.locate(field).to_string();
    assert_eq!(place("spec.rules[0].backendRefs[0].name"), "input.yaml:13:17");
    assert_eq!(place("spec.rules[0].backendRefs[0].weight"), "input.yaml:13:11", "its parent");
    assert_eq!(place("spec.rules[7].name"), "input.yaml:7:3", "its grandparent");
    assert_eq!(place("nothing.of[\"the.sort\"]"), "input.yaml:2:1");
    let map = snapshot.config_maps.get("default", "c").unwrap();
    assert_eq!(map.locate("data[\"ca.crt\"]").to_string(), "input.yaml:19:11");
    assert_eq!(map.locate("data[\"tls.crt\"]").to_string(), "input.yaml:18:1");
}

#[test]
fn variables_are_replaced_in_values_only() {
    let (snapshot, said) =
        with_env(&ROUTE.replace("value: m", "value: pre-${MODEL}-${GONE:-none}-${EMPTY:-e}-$${MODEL}"));
    assert_eq!(said, "");
    let route = snapshot.ai_gateway_routes.get("default", "r").unwrap();
    assert_eq!(route.spec.rules[0].matches[0].headers[0].value, "pre-gpt-4o-none-e-${MODEL}");
    let (_, said) = with_env(&ROUTE.replace("value: m", "${MODEL}: m"));
    assert!(said.contains("unknown field `${MODEL}`"), "{said}");
}

#[test]
fn variable_cannot_change_the_structure() {
    let (snapshot, said) = with_env(&ROUTE.replace("value: m", "value: ${EVIL}"));
    assert_eq!(said, "");
    let route = snapshot.ai_gateway_routes.get("default", "r").unwrap();
    assert_eq!(route.spec.rules[0].matches[0].headers[0].value, "x\nspec: {rules: []}\n---\nkind: Secret");
    assert!(snapshot.secrets.is_empty());
}

#[test]
fn variable_can_stand_for_a_number() {
    let backend = |port: &str| {
        format!(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {{name: b}}\nspec:\n  endpoints:\n    - fqdn:\n        hostname: h\n        port: {port}\n"
        )
    };
    let (snapshot, said) = with_env(&backend("${PORT}"));
    assert_eq!(said, "");
    let fqdn = snapshot.backends.get("default", "b").unwrap().spec.endpoints[0].fqdn.clone().unwrap();
    assert_eq!(fqdn.port, 8443);
    assert!(with_env(&backend("${MODEL}")).1.contains("expected a whole number"));
    assert!(
        with_env(&backend("'8443'")).1.contains("expected a whole number"),
        "only variables are converted"
    );
}

#[test]
fn variable_without_value_is_an_error_with_its_place() {
    let (_, said) = with_env(&ROUTE.replace("value: m", "value: ${API_MODEL}"));
    for expected in [
        "`API_MODEL` is not set",
        "--> in.yaml:11:22",
        "headers[0].value",
        "`${API_MODEL:-default}`",
        "`$${`",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    for wrong in ["${}", "${A", "${A-b}", "${1}", "${A:-${B}}"] {
        let (_, said) = with_env(&ROUTE.replace("value: m", &format!("value: '{wrong}'")));
        assert!(said.contains("does not start a variable reference"), "{wrong}:\n{said}");
    }
}

#[test]
fn scripts_in_config_maps_keep_variables_that_are_not_set() {
    let (snapshot, said) = with_env(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {s: 'echo ${MODEL} ${HOME_OF_NOBODY} ${#a[@]} ${x'}\n",
    );
    assert_eq!(said, "");
    assert_eq!(
        snapshot.config_maps.get("default", "c").unwrap().data["s"],
        "echo gpt-4o ${HOME_OF_NOBODY} ${#a[@]} ${x"
    );
}

#[test]
fn secrets_are_decoded_and_never_shown() {
    use secrecy::ExposeSecret;
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: aHVudGVyMg==, b: aHVudGVyMw==}\nstringData: {b: hunter4}\n";
    let (snapshot, findings) = Snapshot::parse(text);
    assert_eq!(findings, []);
    let secret = snapshot.secrets.get("default", "s").unwrap();
    assert_eq!(secret.value("a").unwrap().expose_secret(), "hunter2");
    assert_eq!(secret.value("b").unwrap().expose_secret(), "hunter4");
    assert!(secret.value("c").is_none());
    assert_eq!(secret.keys().collect::<Vec<_>>(), ["a", "b"]);
    let shown = format!("{snapshot:?}");
    for hidden in ["hunter", "aHVudGVy"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[test]
fn findings_in_secrets_repeat_nothing_of_the_values() {
    let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    for body in [
        "data: {key: hunter2!}",
        "stringData: {key: 4711}",
        "stringData: {key: [hunter2]}",
        "stringData: hunter2",
        "stringData: {key: '${hunter2'}",
        "stringData: {key: *hunter2}",
        "stringData: {key: hunter2, key: hunter2}",
        "stringData: {key: 'hunter2}",
        "stringData: {key: !!int hunter2}",
        "type: [hunter2]",
        "spec: hunter2",
    ] {
        let (snapshot, said) = Snapshot::parse(&format!("{head}{body}\n"));
        assert!(snapshot.secrets.is_empty(), "{body}");
        let said: String = said.iter().map(|finding| finding.render(false)).collect();
        assert!(said.contains("error"), "{body}");
        // An alias is named by the parser; it is no value.
        let said = said.replace("Secret default/s", "");
        assert!(!said.contains("hunter2") && !said.contains("4711"), "{body}:\n{said}");
    }
}

#[test]
fn botched_secrets_are_not_shown_either() {
    for text in [
        "apiVersion: v1\nkind: Secert\nmetadata: {name: s}\nstringData: {key: hunter2, key: hunter2}\n",
        "apiVersion: v1\nmetadata: {name: s}\ndata: {key: hunter2, key: hunter2}\n",
        "apiVersion: v2\nkind: Secret\nmetadata: {name: s}\ndata: {key: hunter2, key: hunter2}\n",
        "kind: List\napiVersion: v1\nitems: [{kind: Secret, stringData: {key: hunter2, key: hunter2}}]\n",
    ] {
        let said = messages(text);
        assert!(said.contains("given twice") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn values_of_variables_are_not_repeated() {
    let (_, said) = with_env(&ROUTE.replace("value: m", "value: m\n              type: ${MODEL}"));
    assert!(said.contains("the value is not one of the values") && !said.contains("gpt-4o"), "{said}");
}

#[test]
fn words_that_yaml_takes_for_truth_values_are_explained() {
    assert_says(
        &ROUTE.replace("value: m", "value: on"),
        &["expected a string, found the truth value true", "`on`"],
    );
}

#[test]
fn null_is_a_field_that_is_not_there() {
    let (snapshot, findings) = Snapshot::parse(&ROUTE.replace("name: b", "name: b\n          weight:"));
    assert_eq!(findings, []);
    assert_eq!(
        snapshot.ai_gateway_routes.get("default", "r").unwrap().spec.rules[0].backend_refs[0].weight,
        1
    );
    assert_says(&ROUTE.replace("value: m", "value:"), &["missing field `value`"]);
}

#[test]
fn document_order_is_kept_over_files() {
    let other = ROUTE.replace("name: r\n", "name: a\n");
    let (snapshot, _) = parse([Source::new("2.yaml", ROUTE), Source::new("1.yaml", other)], &|_| None);
    let names: Vec<_> = snapshot.ai_gateway_routes.iter().map(|route| (route.name(), route.order)).collect();
    assert_eq!(names, [("r", 0), ("a", 1)]);
}

#[test]
fn hostile_yaml_is_refused_quickly() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert_says(&bomb, &["not valid YAML"]);
    assert_says(&"[".repeat(100_000), &["not valid YAML"]);
    assert_says(&"- ".repeat(10_000), &["not valid YAML"]);
    assert_says(&"{a: ".repeat(10_000), &["not valid YAML"]);
    assert_says(&"[x],".repeat(500_000).replacen('[', "[[", 1), &["not valid YAML"]);
    assert!(Snapshot::parse(&"---\nx\n".repeat(50_000)).1.len() <= 102);
    assert_says("a: *nowhere\n", &["not valid YAML"]);
    let fields: String = (0..60_000).map(|n| format!("backendRefs{n}: 1, ")).collect();
    let many = format!("{{apiVersion: v1, kind: Service, metadata: {{name: s}}, {fields}}}");
    let (_, findings) = Snapshot::parse(&many);
    assert!(findings.len() < 300 && findings.iter().all(|finding| finding.snippet.is_none()));
    let items = "{apiVersion: v1, kind: Pod},".repeat(20_000);
    assert!(Snapshot::parse(&format!("{{apiVersion: v1, kind: List, items: [{items}]}}")).1.len() < 1_100);
}

#[test]
fn text_marks_and_line_ends_do_not_matter() {
    let windows = format!("\u{feff}# c\r\n---\r\n{}...\r\n", ROUTE.replace('\n', "\r\n"));
    let (snapshot, findings) = Snapshot::parse(&windows);
    assert_eq!(findings, []);
    assert_eq!(snapshot.ai_gateway_routes.len(), 1);
    let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}"#;
    assert_eq!(Snapshot::parse(json).0.config_maps.len(), 1);
    let directive = format!("%YAML 1.2\n---{ROUTE}");
    assert_eq!(Snapshot::parse(&directive).0.ai_gateway_routes.len(), 1);
    assert_eq!(Snapshot::parse("").1, []);
    assert_eq!(Snapshot::parse("# only a comment\n---\n---\n").1, []);
}

#[test]
fn golden_renderings() {
    insta::with_settings!({ snapshot_path => "../../tests/golden/resources", prepend_module_to_snapshot => false }, {
        insta::glob!("../../tests/golden/resources", "*.yaml", |path| {
            let (_, findings) = read(&path.to_owned());
            insta::assert_snapshot!("rendered", findings.render(false));
        });
    });
}

mod properties {
    use proptest::prelude::*;

    use super::{ROUTE, Snapshot};

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            let (_, findings) = Snapshot::parse(&text);
            prop_assert!(findings.iter().all(|finding| finding.render(true).ends_with('\n')));
        }

        #[test]
        fn any_yaml_like_text_is_read_without_panic(text in "[-a-c:{}\\[\\],&*!|>'\"#% \n\t$0-9~.]{0,120}") {
            let (_, findings) = Snapshot::parse(&text);
            prop_assert!(findings.iter().all(|finding| finding.render(true).ends_with('\n')));
        }

        #[test]
        fn mutilated_documents_are_read_without_panic(
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..20, "[-a:{}\\[\\],&*!|>'\"# \nü$é]{0,6}"), 1..6),
        ) {
            let mut chars: Vec<char> = ROUTE.chars().collect();
            for (at, remove, insert) in cuts {
                let at = at.index(chars.len().max(1)).min(chars.len());
                let end = (at + remove).min(chars.len());
                chars.splice(at..end, insert.chars());
            }
            let text: String = chars.into_iter().collect();
            let (snapshot, findings) = Snapshot::parse(&text);
            prop_assert!(findings.iter().all(|finding| finding.render(true).ends_with('\n')));
            for route in &snapshot.ai_gateway_routes {
                let finding = route.error("spec.rules[0].backendRefs[0].name", "x");
                prop_assert!(finding.at.is_some() && finding.render(true).ends_with('\n'));
            }
        }

        #[test]
        fn any_field_path_has_a_place(field in "[a-z.\\[\\]\"0-9]{0,30}") {
            let (snapshot, _) = Snapshot::parse(ROUTE);
            prop_assert!(snapshot.ai_gateway_routes.get("default", "r").unwrap().locate(&field).line > 0);
        }
    }
}

#[test]
fn what_did_not_change_is_remembered_and_reads_the_same() {
    let doc = |name: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{apiKey: k}}\n---\n")
    };
    let texts =
        |names: &[&str]| vec![Source::new("a.yaml", names.iter().map(|name| doc(name)).collect::<String>())];
    let mut memory = Memory::default();
    let environment = |_: &str| None;
    for names in
        [&["a", "b", "c"][..], &["a", "x", "c"], &["x", "a", "c", "d"], &["a", "a"], &["a", "b", "c"]]
    {
        let (remembered, findings) = memory.parse(texts(names), &environment);
        let (fresh, expected) = parse(texts(names), &environment);
        assert_eq!(findings.render(false), expected.render(false));
        let places = |snapshot: &Snapshot| {
            let secrets = snapshot.secrets.iter();
            secrets.map(|secret| (secret.id(), secret.order, secret.locate("stringData"))).collect::<Vec<_>>()
        };
        assert_eq!(places(&remembered), places(&fresh));
    }
}

/// What an API server keeps is JSON on one line, possibly of a later release, and no template.
#[test]
fn stored_objects_are_taken_at_their_word() {
    let text = serde_json::json!({
        "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIServiceBackend",
        "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {
            "schema": {"name": "OpenAI", "prefix": "${HOME}", "newer": {"field": [1]}},
            "backendRef": {"name": "b", "kind": "Backend", "group": "gateway.envoyproxy.io"},
        },
        "status": {"conditions": []},
    })
    .to_string();
    let source = || [Source::new("AIServiceBackend/n/a", text.as_str())];
    let (snapshot, findings) = Memory::of_stored().parse(source(), &|_| Some("leaked".to_owned()));
    let backend = snapshot.ai_service_backends.get("n", "a").unwrap();
    assert_eq!(backend.spec.schema.prefix.as_deref(), Some("${HOME}"));
    assert_eq!(findings.len(), 1);
    let rendered = findings.render(false);
    assert!(rendered.contains("warning: `newer` is not known here"), "{rendered}");
    let (snapshot, _) = parse(source(), &|_| None);
    assert!(snapshot.ai_service_backends.is_empty());
}
