//! Requests read with limits, and failures answered as problems.

use std::path::Path;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::body::Problem;
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// A JSON body; an empty one is `{}`. Refused with 400 if it does not fit.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|refused| explain::bad_request(format!("the body was refused: {refused}")))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // Read as an object first: a sequence would pass for a struct with defaults.
        serde_json::from_slice::<serde_json::Map<_, _>>(text)
            .and_then(|object| serde_json::from_value(object.into()))
            .map(Body)
            .map_err(|wrong| {
                explain::bad_request(format!("the body is not what this address takes: {wrong}"))
            })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = http_status(&self);
        answer(status, &Problem::new(self, status))
    }
}

fn http_status(failure: &Failure) -> StatusCode {
    match failure.exit {
        Exit::Usage => StatusCode::BAD_REQUEST,
        Exit::NotFound => StatusCode::NOT_FOUND,
        Exit::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Exit::Unreachable => StatusCode::FORBIDDEN,
        Exit::Failed if failure == &explain::draining() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}

fn answer(status: StatusCode, problem: &Problem) -> Response {
    let text = serde_json::to_string(problem).expect("a problem has only strings and numbers");
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        text,
    )
        .into_response()
}

/// What the TCP listener says to everything but reading.
pub(super) fn read_only(method: &Method, path: &str, socket: &Path) -> Response {
    if method == Method::GET || method == Method::HEAD {
        return explain::no_such_route(path).into_response();
    }
    let status = StatusCode::FORBIDDEN;
    answer(status, &Problem::new(explain::read_only(socket), status))
}
