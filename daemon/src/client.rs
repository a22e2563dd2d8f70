//! The command line's side of the API: one request, one connection, over the node's socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::body::Problem;
use crate::explain::{self, Failure};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A node's daemon, reached over its socket.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// `<data_dir>/pollux.sock`.
    pub socket: PathBuf,
    /// The node, for messages.
    pub node: String,
    /// The file that named it, for messages.
    pub config: PathBuf,
}

impl Daemon {
    /// Reads `path`. Errors: no daemon, not permitted, its refusal, no answer within 30 s.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(
            Method::GET,
            path,
            Bytes::new(),
            Some(Duration::from_secs(30)),
        )
        .await
    }

    /// Posts `body` to `path` and waits at most `limit`. Errors: as for `get`.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        limit: Option<Duration>,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).expect("requests have only strings and numbers");
        self.exchange(Method::POST, path, body.into(), limit).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Option<Duration>,
    ) -> Result<T, Failure> {
        let exchange = self.send(method, path, body);
        let (status, bytes) = match limit {
            None => exchange.await?,
            Some(limit) => tokio::time::timeout(limit, exchange)
                .await
                .map_err(|_| explain::no_answer_in_time(limit))??,
        };
        if !status.is_success() {
            let problem: Problem = serde_json::from_slice(&bytes)
                .map_err(|_| explain::odd_answer(&format!("HTTP status {status}")))?;
            return Err(problem.into());
        }
        serde_json::from_slice(&bytes).map_err(|wrong| explain::odd_answer(&wrong.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|why| self.refused(&why))?;
        let broken = |why: hyper::Error| self.unreachable(&why.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "pollux")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|wrong| explain::bad_request(wrong.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        driver.abort();
        let body = body.map_err(|why| explain::odd_answer(&why.to_string()))?;
        Ok((status, body.to_bytes()))
    }

    fn refused(&self, why: &io::Error) -> Failure {
        match why.kind() {
            io::ErrorKind::PermissionDenied => explain::not_permitted(Some(&self.socket)),
            io::ErrorKind::NotFound => self.unreachable("there is no such socket"),
            io::ErrorKind::ConnectionRefused => self.unreachable("nobody listens"),
            _ => self.unreachable(&why.to_string()),
        }
    }

    fn unreachable(&self, why: &str) -> Failure {
        explain::daemon_unreachable(&self.socket, &self.node, &self.config, why)
    }
}
