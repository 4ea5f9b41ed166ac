//! The listener where keys are managed: JSON over HTTP, for who shows the token.
//!
//! | request | does | answer |
//! | --- | --- | --- |
//! | `POST /v1/keys` | makes a key | 201, the record and the key |
//! | `GET /v1/keys` | lists all | 200, `{"keys": […]}` |
//! | `GET /v1/keys/ID` | shows one | 200, the record |
//! | `POST /v1/keys/ID/revoke` | takes it back | 200, the record |
//! | `POST /v1/keys/ID/rotate` | makes one in its place; body `{"grace": "24h"}` or none | 201, the record and the key |
//!
//! Every change is logged with the target `aigw::audit`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rustls::ServerConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::keys::{Grant, KeyId, MAX_RECORD, Timestamp};
use crate::keystore::{Created, ManageError, Manager, StoreError, parse_duration};
use crate::server::listen::Incoming;
use crate::server::listen::Listener;
use crate::server::tls::Secured;

/// Under which name changes of keys are logged.
const AUDIT: &str = "aigw::audit";
/// How long a key is good still that another takes the place of, unless the request says.
const GRACE: Duration = Duration::from_secs(86_400);

/// Serves until dropped.
pub(super) async fn serve(
    listener: Listener,
    tls: Option<Arc<ServerConfig>>,
    token: SecretString,
    manager: Manager,
) {
    let routes = routes(token, manager);
    let served = match tls {
        None => axum::serve(Incoming(listener), routes).await,
        Some(config) => axum::serve(Secured::new(listener, config), routes).await,
    };
    if let Err(error) = served {
        tracing::error!(%error, "the listener for managing keys failed");
    }
}

pub(super) fn routes(token: SecretString, manager: Manager) -> Router {
    Router::new()
        .route("/v1/keys", get(list).post(create))
        .route("/v1/keys/{id}", get(show))
        .route("/v1/keys/{id}/revoke", post(revoke))
        .route("/v1/keys/{id}/rotate", post(rotate))
        .fallback(async || failure(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            failure(StatusCode::METHOD_NOT_ALLOWED, "this takes another method")
        })
        .layer(DefaultBodyLimit::max(MAX_RECORD))
        .layer(from_fn_with_state(Arc::new(token), authenticate))
        .with_state(manager)
}

/// Nothing is done, nor told, without the token.
async fn authenticate(State(token): State<Arc<SecretString>>, request: Request, next: Next) -> Response {
    if is_shown(&token, request.headers()) {
        return next.run(request).await;
    }
    tracing::warn!(target: AUDIT, method = %request.method(), "keys were asked for without the token");
    let mut answer = failure(StatusCode::UNAUTHORIZED, "show the token as Authorization: Bearer TOKEN");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    answer
}

fn is_shown(token: &SecretString, headers: &HeaderMap) -> bool {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return false };
    let digest = |text: &[u8]| ring::digest::digest(&ring::digest::SHA256, text);
    let expected = format!("Bearer {}", token.expose_secret());
    // Of digests, so that the length tells nothing either.
    digest(shown.as_bytes()).as_ref().ct_eq(digest(expected.as_bytes()).as_ref()).into()
}

/// A grant, or how long it is to last.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    #[serde(default)]
    expires_in: Option<String>,
    #[serde(flatten)]
    grant: serde_json::Map<String, Value>,
}

async fn create(State(manager): State<Manager>, body: Bytes) -> Response {
    let now = SystemTime::now();
    let grant = match grant(&body, now) {
        Ok(grant) => grant,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error),
    };
    created("create", manager.create(grant, now).await, now)
}

fn grant(body: &[u8], now: SystemTime) -> Result<Grant, String> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut grant: Grant =
        serde_json::from_value(Value::Object(wanted.grant)).map_err(|error| error.to_string())?;
    if let Some(within) = wanted.expires_in {
        if grant.expires.is_some() {
            return Err("name expires or expiresIn, not both".to_owned());
        }
        grant.expires = Some(Timestamp::of(now).after(parse_duration(&within)?));
    }
    Ok(grant)
}

async fn list(State(manager): State<Manager>) -> Response {
    let now = SystemTime::now();
    match manager.list().await {
        Ok((records, problems)) => {
            let keys: Vec<_> = records.iter().map(|record| record.describe(now)).collect();
            answer(StatusCode::OK, &json!({ "keys": keys, "problems": problems }))
        }
        Err(error) => refused("list", &error),
    }
}

async fn show(State(manager): State<Manager>, Path(id): Path<String>) -> Response {
    let id = match key_id(&id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    match manager.show(id).await {
        Ok(record) => answer(StatusCode::OK, &record.describe(SystemTime::now())),
        Err(error) => refused("show", &error),
    }
}

async fn revoke(State(manager): State<Manager>, Path(id): Path<String>) -> Response {
    let now = SystemTime::now();
    let id = match key_id(&id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    match manager.revoke(id, now).await {
        Ok(record) => {
            tracing::info!(target: AUDIT, operation = "revoke", key = %id, name = record.grant.name, "a key was revoked");
            answer(StatusCode::OK, &record.describe(now))
        }
        Err(error) => refused("revoke", &error),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Rotation {
    grace: Option<String>,
}

async fn rotate(State(manager): State<Manager>, Path(id): Path<String>, body: Bytes) -> Response {
    let now = SystemTime::now();
    let id = match key_id(&id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    let grace = if body.is_empty() { Ok(GRACE) } else { grace(&body) };
    match grace {
        Ok(grace) => created("rotate", manager.rotate(id, grace, now).await, now),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

fn grace(body: &[u8]) -> Result<Duration, String> {
    let Rotation { grace } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    grace.map_or(Ok(GRACE), |grace| parse_duration(&grace))
}

/// The answer that holds a key, and the line in the log that does not.
fn created(operation: &'static str, done: Result<Created, ManageError>, now: SystemTime) -> Response {
    let Created { record, key } = match done {
        Ok(created) => created,
        Err(error) => return refused(operation, &error),
    };
    tracing::info!(
        target: AUDIT,
        operation,
        key = %record.id,
        name = record.grant.name,
        organisation = record.grant.organisation,
        team = record.grant.team,
        rotated_from = record.rotated_from.map(tracing::field::display),
        "a key was made"
    );
    let mut value = record.describe(now);
    if let Some(members) = value.as_object_mut() {
        members.insert("key".to_owned(), json!(key.expose_secret()));
    }
    answer(StatusCode::CREATED, &value)
}

fn key_id(text: &str) -> Result<KeyId, Box<Response>> {
    text.parse().map_err(|error: crate::keys::InvalidId| {
        Box::new(failure(StatusCode::BAD_REQUEST, &error.to_string()))
    })
}

fn refused(operation: &'static str, error: &ManageError) -> Response {
    tracing::warn!(target: AUDIT, operation, %error, "keys were not changed");
    let status = match error {
        ManageError::Grant(_) => StatusCode::BAD_REQUEST,
        ManageError::NoSuchKey(_) => StatusCode::NOT_FOUND,
        ManageError::Over(..) | ManageError::Store(StoreError::Conflict) => StatusCode::CONFLICT,
        ManageError::Store(StoreError::Away(_)) | ManageError::Random => StatusCode::SERVICE_UNAVAILABLE,
    };
    failure(status, &error.to_string())
}

fn failure(status: StatusCode, message: &str) -> Response {
    answer(status, &json!({ "error": { "message": message } }))
}

/// Nobody on the way may keep it.
fn answer(status: StatusCode, value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{value}\n")).into_response()
}
