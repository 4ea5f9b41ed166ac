use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Api {
    _folder: tempfile::TempDir,
    routes: axum::Router,
}

impl Api {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&Location::File(folder.path().join("keys.jsonl")), None).unwrap();
        let routes = admin::routes(TOKEN.to_owned().into(), Manager::new(store));
        Self { _folder: folder, routes }
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: String) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = self.routes.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, path, Some(TOKEN), body).await
    }
}

#[tokio::test]
async fn nothing_is_done_without_the_token() {
    let api = Api::new();
    for token in [None, Some(""), Some("0123456789abcdef0123456789abcdeg"), Some("0123")] {
        for (method, path) in
            [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/other"), ("PUT", "/v1/keys")]
        {
            let (status, _) = api.ask(method, path, token, r#"{"name":"n"}"#.to_owned()).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{token:?} {method} {path}");
        }
    }
    let (status, made) = api.call("POST", "/v1/keys", json!({"name": "n"})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (_, all) = api.call("GET", "/v1/keys", Value::Null).await;
    assert_eq!(all["keys"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_key_through_its_life() {
    let api = Api::new();
    let wanted = json!({"name": "ci", "organisation": "acme", "expiresIn": "90d", "models": ["gpt-4o*"],
        "sources": ["10.0.0.0/8"], "metadata": {"ticket": "1"}, "quota": "small"});
    let (_, made) = api.call("POST", "/v1/keys", wanted).await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(key.starts_with(&format!("aigw-{id}-")));
    let (status, shown) = api.call("GET", &format!("/v1/keys/{id}"), Value::Null).await;
    assert_eq!(
        (status, &shown["status"], &shown["quota"]),
        (StatusCode::OK, &json!("active"), &json!("small"))
    );
    assert!(shown.get("key").is_none() && shown.get("hash").is_none(), "{shown}");
    let (status, next) = api.call("POST", &format!("/v1/keys/{id}/rotate"), json!({"grace": "1h"})).await;
    assert_eq!((status, &next["rotatedFrom"]), (StatusCode::CREATED, &json!(id)));
    let (_, shown) = api.call("GET", &format!("/v1/keys/{id}"), Value::Null).await;
    assert_eq!((&shown["status"], &shown["rotatedTo"]), (&json!("retiring"), &next["id"]));
    let (status, taken) = api.call("POST", &format!("/v1/keys/{id}/revoke"), Value::Null).await;
    assert_eq!((status, &taken["status"]), (StatusCode::OK, &json!("revoked")));
    let (status, over) = api.call("POST", &format!("/v1/keys/{id}/rotate"), Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT, "{over}");
}

#[tokio::test]
async fn what_makes_no_sense_is_explained() {
    let api = Api::new();
    api.call("POST", "/v1/keys", json!({"name": "n"})).await;
    for (path, body, status, words) in [
        ("/v1/keys", json!({}), 400, "name"),
        ("/v1/keys", json!({"name": "n", "model": "x"}), 400, "unknown field"),
        ("/v1/keys", json!({"name": "n", "expiresIn": "soon"}), 400, "30d"),
        ("/v1/keys", json!({"name": "n", "sources": ["here"]}), 400, "no network"),
        ("/v1/keys", json!({"name": ""}), 400, "name is empty"),
        ("/v1/keys/short/revoke", Value::Null, 400, "no id"),
        ("/v1/keys/000000000000/revoke", Value::Null, 404, "no key"),
        ("/v1/keys/000000000000/rotate", json!({"grace": 1}), 400, "grace"),
        ("/v1/keys/000000000000", json!({}), 405, "method"),
        ("/elsewhere", Value::Null, 404, "nothing here"),
    ] {
        let (got, answer) = api.call("POST", path, body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        let fits = message.contains(words) || words == "grace" && message.contains("expected");
        assert!(got == status && fits, "{path} {body}: {got} {message}");
    }
}

#[test]
fn a_token_has_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    for bad in ["", "short", "two words that are long enough"] {
        std::fs::write(&file, bad).unwrap();
        assert!(token(&file).unwrap_err().to_string().contains("openssl rand"), "{bad}");
    }
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    assert!(token(&file).is_ok());
    assert!(token(Path::new("/nowhere")).is_err());
}
