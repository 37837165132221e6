//! The TCP side: accepting, capping, timing and closing connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::response::Response;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{Drain, Error};

/// How long open requests may take after [`crate::Phase::Stopping`].
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// A socket that listens, and the limits of its connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    header_timeout: Duration,
    max_connections: usize,
}

impl Listener {
    /// Listens on the address; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is busy, forbidden, or the address is not ours; the message names the remedy.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let socket = TcpListener::bind(address).await.map_err(|source| Error::bind(address, source))?;
        let address = socket.local_addr().map_err(|source| Error::bind(address, source))?;
        Ok(Self { socket, address, header_timeout: Duration::from_secs(30), max_connections: 20_000 })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Longest wait for a request's headers, also between requests on one connection. Default 30 s.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Connections at once, WebSockets included; more wait in the system's queue. Default 20 000.
    #[must_use]
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = count.max(1);
        self
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => return (stream, peer),
                // The client left between its SYN and now.
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset
                    ) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections; raise the open-file limit (ulimit -n) if it says too many open files");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Keeps a connection's place under the cap, also after it has become a WebSocket.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionPermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Answers connections until [`Drain::stop`], then closes them and returns. Sessions on upgraded connections
/// are the caller's to wait for: [`Drain::run`].
pub async fn serve(listener: Listener, router: Router, drain: Drain) {
    let permits = Arc::new(Semaphore::new(listener.max_connections));
    let connections = TaskTracker::new();
    let abandon = CancellationToken::new();
    let stopping = drain.stopping();
    tokio::pin!(stopping);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            let (stream, peer) = listener.accept().await;
            (permit, stream, peer)
        };
        let (permit, stream, peer) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stopping => break,
        };
        // Audio frames are small and must not wait for the previous one's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the client left at once");
            continue;
        }
        let connection = Connection {
            peer,
            router: router.clone(),
            drain: drain.clone(),
            permit: ConnectionPermit { _permit: Arc::new(permit) },
            header_timeout: listener.header_timeout,
            answered: Arc::new(AtomicBool::new(false)),
        };
        let abandon = abandon.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection.run(stream) => {}
                () = abandon.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(CLOSING_TIME, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests were still open; closing their connections"
        );
        abandon.cancel();
        connections.wait().await;
    }
}

#[derive(Clone)]
struct Connection {
    peer: SocketAddr,
    router: Router,
    drain: Drain,
    permit: ConnectionPermit,
    header_timeout: Duration,
    /// Whether any request has come: until then the connection is on probation.
    answered: Arc<AtomicBool>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            .max_header_list_size(32 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let (drain, answered) = (self.drain.clone(), Arc::clone(&self.answered));
        let probation = tokio::time::sleep(self.header_timeout);
        let service = hyper::service::service_fn(move |request| self.clone().answer(request));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let stopping = drain.stopping();
        tokio::pin!(connection, stopping, probation);
        let (mut on_probation, mut closing) = (true, false);
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                // hyper's own header timeout starts only once it knows the HTTP version, so a client that
                // sends nothing, or half an HTTP/2 preface, would stay for ever.
                () = &mut probation, if on_probation => {
                    on_probation = false;
                    if !answered.load(Ordering::Relaxed) {
                        return;
                    }
                }
                () = &mut stopping, if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response, Infallible> {
        self.answered.store(true, Ordering::Relaxed);
        let http1 = request.version() <= Version::HTTP_11;
        let mut request = request.map(Body::new);
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(self.peer));
        extensions.insert(self.drain.clone());
        extensions.insert(self.permit);
        let mut response = self.router.oneshot(request).await?;
        // Clients that keep connections open move on to another server by themselves.
        if http1 && self.drain.is_draining() && !response.headers().contains_key(CONNECTION) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}
