//! Policies of every kind, and what the processor makes of them.

use super::*;
use crate::runtime::Runtime;

/// A policy for backend `one`, with this under its spec, and a Secret with these values.
fn policy(spec: &str, values: &str) -> String {
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {{name: one-key}}
spec:
  targetRefs: [{{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: one}}]
{spec}
---
apiVersion: v1
kind: Secret
metadata: {{name: one-key}}
stringData: {values}
"
    )
}

fn resources(spec: &str, values: &str) -> String {
    [GATEWAY, &backend("one", ""), &policy(spec, values), &route("r", &model_rule("a", "{name: one}"))]
        .concat()
}

/// The redacted `auth` of the backend, and where its secret is fetched.
fn served(spec: &str, values: &str) -> (Value, Option<&'static str>) {
    let compiled = compile_clean(&resources(spec, values));
    let auth = compiled.config.redacted()["backends"][0]["auth"].clone();
    let (runtime, problems) = Runtime::new(compiled.config);
    assert!(problems.is_empty(), "{problems:?}");
    (auth, runtime.cells().first().map(|(_, cell)| cell.source().kind()))
}

fn routing_key(spec: &str, values: &str) -> String {
    only_gateway(&compile_text(&resources(spec, values))).rules[0].routing_key.clone()
}

const AWS: &str = "  type: AWSCredentials
  awsCredentials: {region: eu-west-1, credentialsFile: {secretRef: {name: one-key}}}";
const AWS_FILE: &str =
    r#"{credentials: "[default]\naws_access_key_id = AKID\naws_secret_access_key = hush # mine\n"}"#;
const AZURE: &str = "  type: AzureCredentials
  azureCredentials: {clientID: c, tenantID: t, clientSecretRef: {name: one-key}}";
const OIDC: &str = "oidcExchangeToken: {awsRoleArn: 'arn:aws:iam::1:role/r', aud: a, oidc: {provider: {issuer: 'https://issuer.example.com'}, clientID: c, clientSecret: {name: one-key}, scopes: [s]}}";

#[test]
fn each_kind_is_served() {
    let (auth, source) = served(AWS, AWS_FILE);
    assert_eq!(
        (&auth["aws"]["region"], &auth["aws"]["host"]),
        (&"eu-west-1".into(), &"one.example.com".into())
    );
    assert_eq!((&auth["aws"]["credentialFileLiteral"], source), (&"[REDACTED]".into(), None));

    let chain = "  type: AWSCredentials\n  awsCredentials: {region: eu-west-1}";
    assert_eq!(served(chain, "{}").1, Some("the AWS default chain"));

    let role = format!("  type: AWSCredentials\n  awsCredentials: {{region: eu-west-1, {OIDC}}}");
    let (auth, source) = served(&role, "{client-secret: hush}");
    assert_eq!(source, Some("an AWS role by OIDC"));
    assert_eq!(auth["aws"]["role"]["session"], "ai-gateway-one-key");

    let (auth, source) = served(AZURE, "{client-secret: hush}");
    assert_eq!(
        (&auth["azure"]["application"]["tenantId"], source),
        (&"t".into(), Some("a Microsoft Entra application"))
    );

    let gcp =
        |more: &str| format!("  type: GCPCredentials\n  gcpCredentials: {{projectName: p, region: r{more}}}");
    assert_eq!(served(&gcp(""), "{}").1, Some("Google's application default credentials"));
    let file = gcp(", credentialsFile: {secretRef: {name: one-key}}");
    let account = r#"{service_account.json: '{"type": "service_account", "private_key": "hush"}'}"#;
    assert_eq!(served(&file, account).1, Some("a Google credentials file"));
    let oidc = OIDC.replace("awsRoleArn: 'arn:aws:iam::1:role/r', ", "");
    let pool = gcp(&format!(
        ", workloadIdentityFederationConfig: {{projectID: '7', workloadIdentityPoolName: w, workloadIdentityProviderName: v, serviceAccountImpersonation: {{serviceAccountName: sa}}, {oidc}}}"
    ));
    let (auth, source) = served(&pool, "{client-secret: hush}");
    assert_eq!(source, Some("Google's workload identity federation"));
    let federation = &auth["gcp"]["federation"];
    assert_eq!(
        federation["audience"],
        "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/w/providers/v"
    );
    assert_eq!(federation["serviceAccount"], "sa@p.iam.gserviceaccount.com");
}

#[test]
fn requests_may_bring_their_own() {
    let over = |base: &str, written: &str| format!("{base}\n  credentialOverride: {written}");
    let key = "  type: APIKey\n  apiKey: {secretRef: {name: one-key}}";
    let (auth, _) = served(&over(key, "{fromRequestHeaders: {}}"), "{apiKey: live}");
    let made = &auth["credentialOverride"];
    assert_eq!(
        (&made["headerName"], &made["fallbackToConfigured"]),
        (&"x-aigw-api-key".into(), &true.into())
    );
    let (auth, _) =
        served(&over(AWS, "{fromRequestHeaders: {header: X-Mine-, fallbackToConfigured: false}}"), AWS_FILE);
    assert_eq!(
        auth["credentialOverride"]["inputHeadersToRemove"],
        serde_json::json!(["x-mine-access-key-id", "x-mine-secret-access-key", "x-mine-session-token"])
    );
    let metadata =
        compile_text(&resources(&over(AWS, "{fromDynamicMetadata: {namespace: space}}"), AWS_FILE));
    assert!(messages(&metadata).contains("no filter of this gateway writes dynamic metadata"));
    let auth = &metadata.config.redacted()["backends"][0]["auth"]["credentialOverride"];
    assert_eq!(auth["dynamicMetadataKey"], "x-aigw-aws-credentials");
}

#[test]
fn what_cannot_be_used_is_said_where_it_stands() {
    let gcp = "  type: GCPCredentials\n  gcpCredentials: {projectName: p, region: r}";
    for (spec, values, words) in [
        (AWS, "{credentials: hush}", &["stringData.credentials", "no profile `default`"][..]),
        (&AWS.replace("name: one-key}", "name: one-key}, profile: other"), AWS_FILE, &["no profile `other`"]),
        (&AWS.replace("eu-west-1", "'eu west'"), AWS_FILE, &["spec.awsCredentials.region", "us-east-1"]),
        (AZURE, "{clientSecret: hush}", &["the Secret has no key `client-secret`"]),
        (
            &AZURE.replace("tenantID: t", "tenantID: '../t'"),
            "{client-secret: s}",
            &["spec.azureCredentials.tenantID"],
        ),
        (
            &gcp.replace("region: r", "region: r, credentialsFile: {secretRef: {name: one-key}}"),
            "{service_account.json: hush}",
            &["stringData.service_account.json", "service_account, authorized_user, external_account"],
        ),
        (&gcp.replace("region: r", "region: 'r/s'"), "{}", &["spec.gcpCredentials", "`r/s`"]),
        (
            &format!("{gcp}\n  credentialOverride: {{fromRequestHeaders: {{}}}}"),
            "{}",
            &["fallbackToConfigured: false"],
        ),
        (
            &format!(
                "  type: AWSCredentials\n  awsCredentials: {{region: r, {}}}",
                OIDC.replace("https://", "")
            ),
            "{client-secret: s}",
            &["oidc.provider.issuer", "no URL"],
        ),
    ] {
        let compiled = compile_text(&resources(spec, values));
        let said = messages(&compiled);
        for word in words {
            assert!(said.contains(word), "{word} is not in\n{said}");
        }
        assert!(compiled.diagnostics.has_errors() && !said.contains("hush"), "{said}");
        assert!(compiled.config.backends.iter().all(|backend| backend.auth.is_none()));
    }
}

/// A request that was signed with one credential must not pass a route made for another.
#[test]
fn every_part_of_a_credential_is_in_the_routing_key() {
    let base = routing_key(AWS, AWS_FILE);
    assert_eq!(base, routing_key(AWS, AWS_FILE));
    for (spec, values) in [
        (AWS.to_owned(), AWS_FILE.replace("AKID", "AKIE")),
        (AWS.to_owned(), AWS_FILE.replace("hush", "husk")),
        (AWS.replace("eu-west-1", "eu-west-2"), AWS_FILE.to_owned()),
        (format!("{AWS}\n  credentialOverride: {{fromRequestHeaders: {{}}}}"), AWS_FILE.to_owned()),
        (
            format!("{AWS}\n  credentialOverride: {{fromRequestHeaders: {{fallbackToConfigured: false}}}}"),
            AWS_FILE.to_owned(),
        ),
        (AZURE.to_owned(), "{client-secret: s}".to_owned()),
    ] {
        assert_ne!(base, routing_key(&spec, &values), "{spec}");
    }
    let azure = routing_key(AZURE, "{client-secret: s}");
    assert_ne!(azure, routing_key(AZURE, "{client-secret: t}"));
    assert_ne!(azure, routing_key(&AZURE.replace("clientID: c", "clientID: d"), "{client-secret: s}"));
}

#[test]
fn what_is_signed_for_one_host_is_sent_to_no_other() {
    let attempts = |refs: &str, edit: &dyn Fn(String) -> String| {
        let policy = policy(AWS, AWS_FILE).replace(
            "name: one}]",
            "name: one}, {group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: two}]",
        );
        let text =
            [GATEWAY, &backend("one", ""), &backend("two", ""), &policy, &route("r", &model_rule("a", refs))];
        let compiled = compile_clean(&edit(text.concat()));
        let rule = only_gateway(&compiled).rules[0].clone();
        (rule.attempts.len(), rule.backend)
    };
    let as_is = |text: String| text;
    let direct = (0, "default/one/route/r/rule/0/ref/0".to_owned());
    assert_eq!(attempts("{name: one}", &as_is), direct);
    assert_eq!(attempts("{name: one}, {name: two}", &as_is).0, 2);
    let same_host = |text: String| text.replace("two.example.com", "one.example.com");
    assert_eq!(attempts("{name: one}, {name: two}", &same_host), direct);
    let two_hosts = |text: String| {
        let other = "port: 8080}}, {fqdn: {hostname: spare.example.com, port: 8080}}]";
        text.replacen("port: 8080}}]", other, 1)
    };
    assert_eq!(attempts("{name: one}", &two_hosts).0, 1);
}
