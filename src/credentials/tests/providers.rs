use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::super::*;
use super::standin::{Asked, Standin, tunnel};
use crate::auth::{AwsTarget, AzureSecret, Credential, CredentialMetadata, Issuer, Secret, SigningRequest};
use crate::headers::{HeaderEdits, Headers};

/// 2026-11-23 00:00:00 UTC.
const NOW: Duration = Duration::from_secs(1_795_392_000);

fn providers(variables: &[(&str, &str)]) -> Providers {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Providers::new(move |name| variables.get(name).cloned(), Arc::new(|| UNIX_EPOCH + NOW))
}

async fn fetched(providers: &Providers, source: &Source) -> Result<(String, Option<u64>), String> {
    let held = providers.fetch(source).await.map_err(|error| error.to_string())?;
    let lifetime = held.expires.map(|expires| expires.duration_since(UNIX_EPOCH + NOW).unwrap().as_secs());
    let told = match &held.secret {
        Secret::Header(value) => value.expose_secret().to_owned(),
        Secret::Aws(keys) => {
            let credential = Credential::aws(keys.clone(), AwsTarget::new("us-east-1", None).unwrap());
            let mut edits = HeaderEdits::default();
            let request = SigningRequest {
                method: b"POST",
                path: "/",
                upstream_host: None,
                body: b"",
                headers: &Headers::default(),
                credential_metadata: &CredentialMetadata::default(),
                wall: UNIX_EPOCH + NOW,
            };
            credential.sign(&request, &mut edits).unwrap();
            let value = |name: &str| {
                let found = edits.set.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).unwrap_or_default()
            };
            let id = value("authorization").split(['=', '/']).nth(1).unwrap().to_owned();
            format!("{id} {}", value("x-amz-security-token"))
        }
    };
    Ok((told, lifetime))
}

fn token(text: &str, seconds: u64) -> String {
    json!({"access_token": text, "expires_in": seconds, "token_type": "Bearer"}).to_string()
}

fn azure(authority: &str, secret: AzureSecret) -> Source {
    let (tenant, client) = ("my-tenant".to_owned(), "my-client".to_owned());
    Source::Azure { tenant, client, secret, authority: Some(authority.to_owned()) }
}

fn issuer(url: &str) -> Issuer {
    Issuer {
        url: url.to_owned(),
        token_endpoint: None,
        client_id: "oidc-client".to_owned(),
        client_secret: "oidc-hush".into(),
        scopes: vec!["mine".to_owned()],
        audience: None,
    }
}

#[tokio::test]
async fn entra_gives_a_token_for_an_applications_secret() {
    let entra = Standin::start(|_| (200, token("t1", 3599)));
    let source = azure(&entra.url(), AzureSecret::Secret("s&cret".into()));
    assert_eq!(fetched(&providers(&[]), &source).await.unwrap(), ("Bearer t1".to_owned(), Some(3599)));
    let asked = entra.only();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/my-tenant/oauth2/v2.0/token"));
    for (field, value) in [
        ("grant_type", "client_credentials"),
        ("client_id", "my-client"),
        ("client_secret", "s&cret"),
        ("scope", "https://cognitiveservices.azure.com/.default"),
    ] {
        assert_eq!(asked.field(field).as_deref(), Some(value), "{field}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_without_the_secret() {
    let entra = Standin::start(|_| {
        (401, json!({"error": "invalid_client", "error_description": "no such secret"}).to_string())
    });
    let source = azure(&entra.url(), AzureSecret::Secret("hush".into()));
    let error = fetched(&providers(&[]), &source).await.unwrap_err();
    assert!(error.contains("401") && error.contains("invalid_client: no such secret"), "{error}");
    assert!(!error.contains("hush"));
    for answer in ["{}", "hush", r#"{"access_token": "a b", "expires_in": 1}"#] {
        let entra = Standin::start(move |_| (200, answer.to_owned()));
        let source = azure(&entra.url(), AzureSecret::Secret("x".into()));
        let error = fetched(&providers(&[]), &source).await.unwrap_err();
        assert!(!error.contains("hush") && !error.contains("a b"), "{error}");
    }
}

#[tokio::test]
async fn an_application_may_prove_itself_by_oidc() {
    let oidc = oidc_provider();
    let entra = Standin::start(|_| (200, token("t1", 60)));
    let source = azure(&entra.url(), AzureSecret::Issuer(issuer(&oidc.url())));
    assert_eq!(fetched(&providers(&[]), &source).await.unwrap().0, "Bearer t1");
    let asked = entra.only();
    assert_eq!(asked.field("client_assertion").as_deref(), Some("from-oidc"));
    assert_eq!(asked.field("client_secret"), None);
    let login = &oidc.asked()[1];
    assert_eq!(login.target, "/token");
    assert_eq!(login.headers["authorization"], "Basic b2lkYy1jbGllbnQ6b2lkYy1odXNo");
    assert_eq!(login.field("scope").as_deref(), Some("mine openid"));
    assert_eq!(login.field("grant_type").as_deref(), Some("client_credentials"));
}

/// Answers discovery with itself.
fn oidc_provider() -> Standin {
    Standin::start(|asked: &Asked| {
        if asked.target == "/.well-known/openid-configuration" {
            let here = format!("http://{}/token", asked.headers["host"]);
            return (
                200,
                json!({"token_endpoint": here, "scopes_supported": ["openid", "mine"]}).to_string(),
            );
        }
        (200, token("from-oidc", 300))
    })
}

fn keys(id: &str) -> String {
    json!({
        "AccessKeyId": id, "SecretAccessKey": "s", "Token": "session",
        "Expiration": "2026-11-23T01:00:00Z",
    })
    .to_string()
}

fn chain() -> Source {
    Source::AwsChain { region: "us-east-1".to_owned() }
}

#[tokio::test]
async fn the_chain_of_aws_begins_with_the_environment() {
    let variables = [("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "s")];
    assert_eq!(fetched(&providers(&variables), &chain()).await.unwrap(), ("AKENV ".to_owned(), None));
}

#[tokio::test]
async fn then_come_shared_files_and_a_named_profile_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "[other]\naws_access_key_id = AKFILE\naws_secret_access_key = s\n").unwrap();
    let file = file.to_str().unwrap();
    let all = [
        ("AWS_ACCESS_KEY_ID", "AKENV"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_SHARED_CREDENTIALS_FILE", file),
        ("AWS_PROFILE", "other"),
    ];
    assert_eq!(fetched(&providers(&all), &chain()).await.unwrap().0, "AKFILE ");
    let wrong = [("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", "absent")];
    assert!(fetched(&providers(&wrong), &chain()).await.unwrap_err().contains("no profile `absent`"));
}

#[tokio::test]
async fn a_role_is_assumed_with_a_web_identity() {
    let sts = Standin::start(|_| {
        let parts = "<AccessKeyId>AKROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                     <SessionToken>session</SessionToken><Expiration>2026-11-23T01:00:00Z</Expiration>";
        (200, format!("<R><Credentials>{parts}</Credentials></R>"))
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the-jwt\n").unwrap();
    let url = sts.url();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ENDPOINT_URL_STS", url.as_str()),
    ];
    let got = fetched(&providers(&variables), &chain()).await.unwrap();
    assert_eq!(got, ("AKROLE session".to_owned(), Some(3600)));
    let asked = sts.only();
    for (field, value) in [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", "arn:aws:iam::1:role/r"),
        ("WebIdentityToken", "the-jwt"),
        ("RoleSessionName", "ai-gateway"),
    ] {
        assert_eq!(asked.field(field).as_deref(), Some(value), "{field}");
    }

    let oidc = oidc_provider();
    let source = Source::AwsRole {
        role: "arn:r".to_owned(),
        session: "s".to_owned(),
        region: "us-east-1".to_owned(),
        issuer: issuer(&oidc.url()),
    };
    let got = fetched(&providers(&[("AWS_ENDPOINT_URL_STS", &url)]), &source).await.unwrap();
    assert_eq!(got.0, "AKROLE session");
    assert_eq!(sts.asked()[1].field("WebIdentityToken").as_deref(), Some("from-oidc"));
}

#[tokio::test]
async fn a_container_asks_with_its_token() {
    let endpoint = Standin::start(|_| (200, keys("AKPOD")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "pod-token\n").unwrap();
    let url = format!("{}/v1/credentials", endpoint.url());
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()),
    ];
    let got = fetched(&providers(&variables), &chain()).await.unwrap();
    assert_eq!(got, ("AKPOD session".to_owned(), Some(3600)));
    let asked = endpoint.only();
    assert_eq!(
        (asked.target.as_str(), asked.headers["authorization"].as_str()),
        ("/v1/credentials", "pod-token")
    );
    // Keys of others are not asked for where anybody can read them.
    let foreign = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/")];
    assert!(
        fetched(&providers(&foreign), &chain()).await.unwrap_err().contains("neither local nor behind TLS")
    );
}

#[tokio::test]
async fn an_instance_asks_its_metadata_service_with_a_session() {
    let imds = Standin::start(|asked: &Asked| {
        let path = "/latest/meta-data/iam/security-credentials/";
        let session = asked.headers.get("x-aws-ec2-metadata-token").map(String::as_str);
        match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token")
                if asked.headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") =>
            {
                (200, "session-1".to_owned())
            }
            ("GET", target) if session == Some("session-1") && target == path => {
                (200, "my-role\n".to_owned())
            }
            ("GET", target) if session == Some("session-1") && target == format!("{path}my-role") => {
                (200, keys("AKIMDS"))
            }
            _ => (401, String::new()),
        }
    });
    let url = imds.url();
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let got = fetched(&providers(&variables), &chain()).await.unwrap();
    assert_eq!(got, ("AKIMDS session".to_owned(), Some(3600)));
    let disabled = [("AWS_EC2_METADATA_DISABLED", "true")];
    assert!(
        fetched(&providers(&disabled), &chain())
            .await
            .unwrap_err()
            .contains("nothing of the AWS default chain")
    );
}

#[tokio::test]
async fn a_service_account_signs_for_its_token() {
    let google = Standin::start(|_| (200, token("g1", 3600)));
    let key = include_str!("rsa-for-tests.pem");
    let file = json!({
        "type": "service_account", "client_email": "me@p.iam", "private_key": key, "private_key_id": "kid",
        "token_uri": format!("{}/token", google.url()),
    });
    let source = Source::GcpFile(file.to_string().into());
    assert_eq!(fetched(&providers(&[]), &source).await.unwrap(), ("Bearer g1".to_owned(), Some(3600)));
    let assertion = google.only().field("assertion").unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(json(header), json!({"alg": "RS256", "typ": "JWT", "kid": "kid"}));
    assert_eq!(
        json(claims),
        json!({
            "iss": "me@p.iam", "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": format!("{}/token", google.url()), "iat": NOW.as_secs(), "exp": NOW.as_secs() + 3600,
        })
    );
    let der =
        <rustls::pki_types::PrivatePkcs8KeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
            key.as_bytes(),
        );
    let pair = ring::signature::RsaKeyPair::from_pkcs8(der.unwrap().secret_pkcs8_der()).unwrap();
    let public = ring::signature::UnparsedPublicKey::new(
        &ring::signature::RSA_PKCS1_2048_8192_SHA256,
        ring::signature::KeyPair::public_key(&pair).as_ref(),
    );
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn googles_defaults_are_a_file_or_the_machines_own() {
    let metadata = Standin::start(|asked: &Asked| match asked.headers.get("metadata-flavor") {
        Some(flavor) if flavor == "Google" => (200, token("m1", 100)),
        _ => (403, String::new()),
    });
    let host = metadata.url().trim_start_matches("http://").to_owned();
    let variables = [("GCE_METADATA_HOST", host.as_str())];
    let got = fetched(&providers(&variables), &Source::GcpDefault).await.unwrap();
    assert_eq!(got, ("Bearer m1".to_owned(), Some(100)));
    assert_eq!(metadata.only().target, "/computeMetadata/v1/instance/service-accounts/default/token");

    let google = Standin::start(|_| (200, token("u1", 10)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application_default_credentials.json");
    let user =
        json!({"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"});
    std::fs::write(&file, user.to_string()).unwrap();
    let mut of_user = providers(&[("CLOUDSDK_CONFIG", folder.path().to_str().unwrap())]);
    of_user.endpoints.gcp_token = google.url();
    assert_eq!(fetched(&of_user, &Source::GcpDefault).await.unwrap().0, "Bearer u1");
    assert_eq!(google.only().field("refresh_token").as_deref(), Some("r"));
    let missing = providers(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/at/all.json")]);
    assert!(fetched(&missing, &Source::GcpDefault).await.unwrap_err().contains("/nowhere/at/all.json"));
}

#[tokio::test]
async fn a_pool_of_google_takes_another_providers_token() {
    let google = Standin::start(|asked: &Asked| {
        if asked.target.starts_with("/v1/projects/") {
            assert_eq!(asked.headers["authorization"], "Bearer federated");
            return (
                200,
                json!({"accessToken": "of-account", "expireTime": "2026-11-23T00:30:00Z"}).to_string(),
            );
        }
        (200, token("federated", 600))
    });
    let oidc = oidc_provider();
    let source = |service_account: Option<&str>| Source::GcpFederation {
        audience: "//iam/pool".to_owned(),
        service_account: service_account.map(str::to_owned),
        issuer: issuer(&oidc.url()),
    };
    let mut providers = providers(&[]);
    providers.endpoints.gcp_sts = format!("{}/sts", google.url());
    providers.endpoints.gcp_iam = google.url();
    assert_eq!(fetched(&providers, &source(None)).await.unwrap(), ("Bearer federated".to_owned(), Some(600)));
    let exchange = google.only();
    assert_eq!(exchange.field("audience").as_deref(), Some("//iam/pool"));
    assert_eq!(exchange.field("subject_token").as_deref(), Some("from-oidc"));
    let got = fetched(&providers, &source(Some("sa@p"))).await.unwrap();
    assert_eq!(got, ("Bearer of-account".to_owned(), Some(1800)));
    assert_eq!(google.asked()[2].target, "/v1/projects/-/serviceAccounts/sa@p:generateAccessToken");
}

#[tokio::test]
async fn an_external_account_reads_its_token_from_a_file() {
    let google = Standin::start(|_| (200, token("x1", 600)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("subject.json");
    std::fs::write(&path, r#"{"id_token": "subject"}"#).unwrap();
    let file = json!({
        "type": "external_account", "audience": "//a", "token_url": format!("{}/sts", google.url()),
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "credential_source": {"file": path, "format": {"type": "json", "subject_token_field_name": "id_token"}},
    });
    let source = Source::GcpFile(file.to_string().into());
    assert_eq!(fetched(&providers(&[]), &source).await.unwrap().0, "Bearer x1");
    assert_eq!(google.only().field("subject_token").as_deref(), Some("subject"));
    let wrong = Source::GcpFile(r#"{"type": "hush"}"#.into());
    let error = fetched(&providers(&[]), &wrong).await.unwrap_err();
    assert!(error.contains("service_account") && !error.contains("hush"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_asked_in_the_providers_place() {
    let proxy = Standin::start(|_| (200, token("by-proxy", 60)));
    let by = proxy.url().replace("http://", "http://user:pass@");
    let source = azure("http://entra.invalid", AzureSecret::Secret("s".into()));
    let got = fetched(&providers(&[("AI_GATEWAY_AZURE_PROXY_URL", &by)]), &source).await.unwrap();
    assert_eq!(got.0, "Bearer by-proxy");
    let asked = proxy.only();
    assert_eq!(asked.target, "http://entra.invalid/my-tenant/oauth2/v2.0/token");
    assert_eq!(asked.headers["host"], "entra.invalid");
    assert_eq!(asked.headers["proxy-authorization"], "Basic dXNlcjpwYXNz");
    // With TLS it only connects, and may refuse.
    let refusing = Standin::start(|_| (407, String::new()));
    let source = azure("https://entra.invalid", AzureSecret::Secret("s".into()));
    let error =
        fetched(&providers(&[("AI_GATEWAY_AZURE_PROXY_URL", &refusing.url())]), &source).await.unwrap_err();
    assert!(error.contains("the proxy answered 407"), "{error}");
    let asked = refusing.only();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("CONNECT", "entra.invalid:443"));
    assert_eq!(asked.body, "");
}

#[tokio::test]
async fn tls_is_spoken_with_whom_the_system_trusts_through_a_proxy_too() {
    let (entra, root) = Standin::start_tls(|_| (200, token("by-tls", 60)));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let port = entra.address().port();
    let source = azure(&format!("https://localhost:{port}"), AzureSecret::Secret("s".into()));
    let trusting = |variables: &[(&str, &str)]| Providers {
        client: http::Client::trusting(roots.clone()),
        ..providers(variables)
    };
    assert_eq!(fetched(&trusting(&[]), &source).await.unwrap().0, "Bearer by-tls");

    let (proxy, asked) = tunnel(entra.address());
    let far = azure("https://localhost:7", AzureSecret::Secret("s".into()));
    for variable in ["AI_GATEWAY_AZURE_PROXY_URL", "HTTPS_PROXY", "https_proxy"] {
        assert_eq!(
            fetched(&trusting(&[(variable, &proxy)]), &far).await.unwrap().0,
            "Bearer by-tls",
            "{variable}"
        );
    }
    assert_eq!(*asked.lock().unwrap(), vec!["CONNECT localhost:7 HTTP/1.1"; 3]);
    let spared = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "localhost")];
    assert_eq!(fetched(&trusting(&spared), &source).await.unwrap().0, "Bearer by-tls");
    assert_eq!(asked.lock().unwrap().len(), 3);

    let distrusting =
        Providers { client: http::Client::trusting(rustls::RootCertStore::empty()), ..providers(&[]) };
    let error = fetched(&distrusting, &source).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(entra.asked().len(), 5);
}
