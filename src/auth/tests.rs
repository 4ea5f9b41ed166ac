use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;

/// 2015-08-30 12:36:00 UTC.
const MOMENT: Duration = Duration::from_secs(1_440_938_160);

struct Asked {
    method: &'static str,
    path: &'static str,
    host: Option<&'static str>,
    body: &'static str,
    headers: Headers,
    metadata: CredentialMetadata,
}

impl Default for Asked {
    fn default() -> Self {
        let (headers, metadata) = (Headers::default(), CredentialMetadata::default());
        Self { method: "POST", path: "/v1/chat/completions", host: None, body: "{}", headers, metadata }
    }
}

impl Asked {
    fn with(headers: &[(&'static str, &'static str)]) -> Self {
        Self { headers: headers.iter().copied().collect(), ..Self::default() }
    }

    fn told(namespace: &str, keys: serde_json::Value) -> Self {
        let mut asked = Self::default();
        asked.metadata.insert(namespace, keys);
        asked
    }

    fn sign_over(&self, credential: &Credential, edits: &mut HeaderEdits) -> Result<(), SignError> {
        let request = SigningRequest {
            method: self.method.as_bytes(),
            path: self.path,
            upstream_host: self.host,
            body: self.body.as_bytes(),
            headers: &self.headers,
            credential_metadata: &self.metadata,
            wall: SystemTime::UNIX_EPOCH + MOMENT,
        };
        credential.sign(&request, edits)
    }

    fn sign(&self, credential: &Credential) -> Result<HeaderEdits, SignError> {
        let mut edits = HeaderEdits::default();
        self.sign_over(credential, &mut edits).map(|()| edits)
    }

    /// What is set, as text.
    fn signed(&self, credential: &Credential) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        self.sign(credential).unwrap().set.iter().map(|(name, value)| (text(name), text(value))).collect()
    }
}

fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn value<'s>(signed: &'s [(String, String)], name: &str) -> &'s str {
    &signed.iter().find(|(key, _)| key == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn each_static_kind_has_its_header_and_keys_are_trimmed() {
    let key = " k\n".into();
    for (credential, expected) in [
        (Credential::bearer(&key), [("authorization", "Bearer k")]),
        (Credential::azure_key(&key), [("api-key", "k")]),
        (Credential::anthropic_key(&key), [("x-api-key", "k")]),
    ] {
        assert_eq!(Asked::default().signed(&credential.unwrap()), set(&expected));
    }
}

#[test]
fn unusable_keys_are_refused() {
    assert_eq!(Credential::bearer(&"  ".into()).unwrap_err(), CredentialError::Empty);
    assert_eq!(Credential::bearer(&"a\nb".into()).unwrap_err(), CredentialError::NotAHeaderValue);
}

#[test]
fn google_clouds_paths_are_under_project_and_region() {
    let credential = Credential::gcp(Some(&"t".into()), Source::GcpDefault, "my-p", "us-central1").unwrap();
    for path in [
        "publishers/google/models/m:generateContent?alt=sse",
        "/publishers/google/models/m:generateContent?alt=sse",
    ] {
        let asked = Asked { path, ..Asked::default() };
        let full =
            "/v1/projects/my-p/locations/us-central1/publishers/google/models/m:generateContent?alt=sse";
        assert_eq!(asked.signed(&credential), set(&[("authorization", "Bearer t"), (":path", full)]));
    }
    for (project, region) in [("../p", "r"), ("p", "r?x"), ("", "r"), ("p", "..")] {
        assert!(Credential::gcp(None, Source::GcpDefault, project, region).is_err(), "{project} {region}");
    }
}

fn example_keys(token: Option<&str>) -> AwsKeys {
    AwsKeys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token).unwrap()
}

/// From AWS's published test suite of Signature Version 4: its cases that sign what we sign (host, date and token). They are for
/// a service called `service`.
#[test]
fn published_vectors() {
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
    let unreserved = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (case, method, path, token, signature) in [
        ("get-vanilla", "GET", "/", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "post-vanilla",
            "POST",
            "/",
            None,
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "get-unreserved",
            "GET",
            unreserved,
            None,
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "get-vanilla-query-order-key",
            "GET",
            "/?Param2=value2&Param1=value1",
            None,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "post-vanilla-query",
            "POST",
            "/?Param1=value1",
            None,
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
        (
            "post-sts-header-before",
            "POST",
            "/",
            Some(TOKEN),
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
    ] {
        let mut target = AwsTarget::new("us-east-1", Some("example.amazonaws.com")).unwrap();
        target.service = "service";
        let credential = Credential::aws(example_keys(token), target);
        let signed = Asked { method, path, body: "", ..Asked::default() }.signed(&credential);
        let names = if token.is_some() { "host;x-amz-date;x-amz-security-token" } else { "host;x-amz-date" };
        assert_eq!(
            value(&signed, "authorization"),
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, Signature={signature}"
            ),
            "{case}"
        );
        assert_eq!(value(&signed, "x-amz-date"), "20150830T123600Z", "{case}");
        assert_eq!(signed.len(), 2 + usize::from(token.is_some()), "{case}: {signed:?}");
    }
}

#[test]
fn host_and_region_of_a_signature_are_those_of_the_provider() {
    let target = || AwsTarget::new("eu-west-1", None).unwrap();
    let scope = |host| {
        let signed =
            Asked { host, ..Asked::default() }.signed(&Credential::aws(example_keys(None), target()));
        value(&signed, "authorization").split('/').nth(2).unwrap().to_owned()
    };
    assert_eq!(scope(None), "eu-west-1");
    assert_eq!(scope(Some("proxy.example.com")), "eu-west-1");
    assert_eq!(scope(Some("bedrock-runtime.us-west-2.amazonaws.com")), "us-west-2");
    let named = AwsTarget::new("eu-west-1", Some("bedrock-runtime.us-west-2.api.aws")).unwrap();
    let signed = Asked::default().signed(&Credential::aws(example_keys(None), named));
    assert!(value(&signed, "authorization").contains("/us-west-2/bedrock/"));
}

#[test]
fn what_cannot_be_a_url_is_not_signed() {
    let credential = Credential::aws(example_keys(None), AwsTarget::new("eu-west-1", None).unwrap());
    for (path, host) in [("/a b", None), ("/", Some("a b")), ("/", Some("a/b@c:d"))] {
        let asked = Asked { path, host, ..Asked::default() };
        assert!(matches!(asked.sign(&credential), Err(SignError::Unusable(_))), "{path} {host:?}");
    }
    for region in ["", "us-east-1.evil.example#", "a b"] {
        assert!(AwsTarget::new(region, None).is_err(), "{region}");
    }
}

#[test]
fn a_fetched_secret_is_used_until_it_expires_and_never_after() {
    let source = Source::GcpDefault;
    let credential = Credential::fetched_bearer(source);
    let cell = credential.cell().unwrap();
    let unavailable = |result: Result<HeaderEdits, _>| matches!(result, Err(SignError::Unavailable(_)));
    assert!(unavailable(Asked::default().sign(&credential)));
    let fill = |token: &str, seconds: u64| {
        let expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        cell.fill(Arc::new(Held { secret: Secret::bearer(token).unwrap(), expires }));
    };
    fill("one", MOMENT.as_secs() + 1);
    assert_eq!(Asked::default().signed(&credential), set(&[("authorization", "Bearer one")]));
    fill("two", MOMENT.as_secs());
    assert!(unavailable(Asked::default().sign(&credential)));
    assert!(Secret::bearer("a b").is_none() && Secret::bearer(" \n").is_none());
}

#[test]
fn a_request_may_bring_its_own_credential() {
    let base = Credential::azure_key(&"static".into()).unwrap();
    let optional = base.clone().or_per_request(Override::header("X-Mine", true));
    let demanded = base.or_per_request(Override::header("x-mine", false));
    let brings = || Asked::with(&[("x-mine", " own ")]);
    for credential in [&optional, &demanded] {
        let edits = brings().sign(credential).unwrap();
        assert_eq!(edits.set, [(Bytes::from("api-key"), Bytes::from("own"))]);
        assert_eq!(edits.remove, ["x-mine"]);
    }
    for asked in [Asked::default(), Asked::with(&[("x-mine", "  ")])] {
        assert_eq!(asked.signed(&optional), set(&[("api-key", "static")]));
        assert_eq!(asked.sign(&demanded).unwrap_err(), SignError::Missing);
    }
    // A configured header edit came before.
    let mut edits = HeaderEdits::default();
    edits.set("x-mine", "edited");
    brings().sign_over(&demanded, &mut edits).unwrap();
    assert_eq!(edits.set, [(Bytes::from("api-key"), Bytes::from("edited"))]);
}

#[test]
fn it_may_come_from_another_filter() {
    let base = || Credential::gcp(Some(&"static".into()), Source::GcpDefault, "p", "r").unwrap();
    let also = ["X-Other".to_owned()];
    let credential = base().or_per_request(Override::metadata("ns", "token", false).removing(&also));
    let mut asked = Asked::told("ns", json!({"token": "told"}));
    asked.headers = [("x-other", "1")].into_iter().collect();
    let edits = asked.sign(&credential).unwrap();
    assert_eq!(edits.remove, ["x-other"]);
    assert_eq!(edits.set[0], (Bytes::from("authorization"), Bytes::from("Bearer told")));
    assert_eq!(edits.set[1].1, "/v1/projects/p/locations/r/v1/chat/completions");
    for (namespace, keys) in
        [("other", json!({"token": "told"})), ("ns", json!({"token": 5})), ("ns", json!([]))]
    {
        assert_eq!(Asked::told(namespace, keys).sign(&credential).unwrap_err(), SignError::Missing);
    }
    let split = Asked::told("ns", json!({"token": "a\r\nx: y"}));
    assert!(matches!(split.sign(&credential), Err(SignError::Unusable(_))));
}

#[test]
fn keys_of_aws_come_in_three_parts() {
    let target = || AwsTarget::new("eu-west-1", None).unwrap();
    let base = Credential::aws(example_keys(None), target());
    let header = base.clone().or_per_request(Override::header("x-aws-", true));
    let metadata = base.clone().or_per_request(Override::metadata("ns", "aws", true));
    let (id, secret, token) = ("x-aws-access-key-id", "x-aws-secret-access-key", "x-aws-session-token");
    let whole = [(id, "AKIDOWN"), (secret, "s"), (token, "t")];
    let edits = Asked::with(&whole).sign(&header).unwrap();
    assert_eq!(edits.remove, [id, secret, token]);
    let signed = Asked::with(&whole).signed(&header);
    assert!(value(&signed, "authorization").contains("Credential=AKIDOWN/"));
    assert_eq!(value(&signed, "x-amz-security-token"), "t");
    let object = json!({"aws": {"accessKeyId": "AKIDOWN", "secretAccessKey": "s", "sessionToken": "t"}});
    assert_eq!(Asked::told("ns", object).signed(&metadata), signed);
    // All or nothing, however it falls back.
    for partial in [&whole[..1], &whole[1..2], &whole[2..]] {
        assert!(matches!(Asked::with(partial).sign(&header), Err(SignError::Unusable(_))));
    }
    assert_eq!(Asked::default().signed(&header), Asked::default().signed(&base));
}

#[test]
fn the_credentials_file_of_aws_is_read() {
    let file = "# a comment\n[default]\naws_access_key_id = AKID\n AWS_SECRET_ACCESS_KEY=hush=\n\n[profile other]\nregion=x\n\
                aws_access_key_id=AKOTHER\naws_secret_access_key = s\naws_session_token = token\n";
    let id = |profile| {
        let credential =
            Credential::aws(aws_keys_of_file(file, profile).unwrap(), AwsTarget::new("r", None).unwrap());
        let signed = Asked::default().signed(&credential);
        (value(&signed, "authorization").split(['=', '/']).nth(1).unwrap().to_owned(), signed.len())
    };
    assert_eq!(id("default"), ("AKID".to_owned(), 2));
    assert_eq!(id("other"), ("AKOTHER".to_owned(), 3));
    for (text, problem) in [
        ("aws_access_key_id = AKID\naws_secret_access_key = hush", "no profile `default`"),
        ("[default]\naws_access_key_id = AKID\n", "no `aws_secret_access_key`"),
        ("[default\n", "no `]` in line 1"),
        ("[default]\nhush\n", "no `=` in line 2"),
        ("[default]\naws_access_key_id = A K\naws_secret_access_key = hush", "characters"),
        ("[default]\naws_access_key_id = AK\naws_secret_access_key =", "empty"),
    ] {
        let error = aws_keys_of_file(text, "default").unwrap_err().to_string();
        assert!(error.contains(problem) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn nothing_prints_a_secret() {
    let issuer = Issuer {
        url: "https://issuer".to_owned(),
        token_endpoint: None,
        client_id: "c".to_owned(),
        client_secret: "hush".into(),
        scopes: Vec::new(),
        audience: None,
    };
    let azure = Source::Azure {
        tenant: "t".to_owned(),
        client: "c".to_owned(),
        secret: AzureSecret::Issuer(issuer),
        authority: None,
    };
    let fetched = Credential::fetched_bearer(azure);
    fetched.cell().unwrap().fill(Arc::new(Held { secret: Secret::bearer("hush").unwrap(), expires: None }));
    let keys = AwsKeys::new("AKhush", "hush", Some("hush")).unwrap();
    let mut metadata = CredentialMetadata::default();
    metadata.insert("ns", json!({"k": "hush"}));
    let printed = format!(
        "{fetched:?} {:?} {keys:?} {:?} {metadata:?} {:?}",
        Credential::bearer(&"hush".into()),
        Provided::Aws(keys.clone()),
        Source::GcpFile("hush".into()),
    );
    assert!(!printed.contains("hush"), "{printed}");
}

#[test]
fn sources_are_the_same_if_all_of_them_is() {
    let azure = |client: &str, secret: &str, authority: Option<&str>| Source::Azure {
        tenant: "t".to_owned(),
        client: client.to_owned(),
        secret: AzureSecret::Secret(secret.into()),
        authority: authority.map(str::to_owned),
    };
    let base = azure("c", "s", None).identity();
    assert_eq!(base, azure("c", "s", None).identity());
    for other in
        [azure("d", "s", None), azure("c", "z", None), azure("c", "s", Some("https://x")), Source::GcpDefault]
    {
        assert_ne!(base, other.identity());
    }
}

#[test]
fn every_client_credential_is_taken_off() {
    let headers: Headers = CLIENT_CREDENTIAL_HEADERS.into_iter().map(|name| (name, "x")).collect();
    let mut edits = HeaderEdits::default();
    strip_client_credentials(&headers, &mut edits);
    assert_eq!(edits.remove, CLIENT_CREDENTIAL_HEADERS);
}
