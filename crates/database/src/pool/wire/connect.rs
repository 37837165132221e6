//! Dialling: tokio-postgres speaks TLS, login and authentication over a borrowed stream, which is then ours.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{Config, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::{Error, with_sources};
use super::Wire;
use super::introduce::Introduced;

/// What a connection is for, which Postgres wants to know at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// SQL.
    Statements,
    /// Logical replication, and SQL by simple queries.
    Replication,
}

/// Asks a server to speak TLS; its answer is one byte.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whatever carries the bytes.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Transport for T {}

type Tls = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::Stream;

/// Opens connections to one database.
#[derive(Clone)]
pub(in super::super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Connector {
    pub(in super::super) fn new(config: Config, tls: MakeRustlsConnect) -> Self {
        Self { config, tls }
    }

    /// Connects and logs in: to the first host that lets us.
    pub(in super::super) async fn connect(&self) -> Result<Wire, Error> {
        Ok(Wire::new(self.open(Purpose::Statements).await?))
    }

    /// As [`Self::connect`], for whoever speaks with Postgres by himself.
    pub(super) async fn open(&self, purpose: Purpose) -> Result<Box<dyn Transport>, Error> {
        let hosts = self.config.get_hosts();
        let mut failure = Error::Unavailable("the database URL names no host".into());
        let count = hosts.len().max(self.config.get_hostaddrs().len());
        for index in 0..count {
            let attempt = self.connect_to(index, purpose);
            let limited = match self.config.get_connect_timeout() {
                Some(limit) if *limit > Duration::ZERO => tokio::time::timeout(*limit, attempt).await,
                _ => Ok(attempt.await),
            };
            match limited {
                Ok(Ok(transport)) => return Ok(transport),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = Error::Unavailable("no answer within the time limit".into()),
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, index: usize, purpose: Purpose) -> Result<Box<dyn Transport>, Error> {
        let ports = self.config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let host = self.config.get_hosts().get(index);
        let address = self.config.get_hostaddrs().get(index);
        let transport = match (host, address) {
            #[cfg(unix)]
            (Some(Host::Unix(folder)), _) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                let mut stream = tokio::net::UnixStream::connect(path).await.map_err(unreachable)?;
                login(&self.config, &mut stream, NoTls, SslMode::Disable, purpose).await?;
                Box::new(stream) as Box<dyn Transport>
            }
            (Some(Host::Tcp(name)), None) => {
                let stream = TcpStream::connect((name.as_str(), port)).await.map_err(unreachable)?;
                self.over_tcp(stream, name, purpose).await?
            }
            (Some(Host::Tcp(name)), Some(address)) => {
                let stream = TcpStream::connect((*address, port)).await.map_err(unreachable)?;
                self.over_tcp(stream, name, purpose).await?
            }
            (None, Some(address)) => {
                let stream = TcpStream::connect((*address, port)).await.map_err(unreachable)?;
                self.over_tcp(stream, &address.to_string(), purpose).await?
            }
            (None, None) => return Err(Error::Unavailable("the database URL names no host".into())),
        };
        let wanted = match self.config.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => Some(false),
            TargetSessionAttrs::ReadOnly => Some(true),
            _ => None,
        };
        let Some(read_only) = wanted.filter(|_| purpose == Purpose::Statements) else { return Ok(transport) };
        let mut wire = Wire::new(transport);
        if wire.is_read_only().await? != read_only {
            return Err(Error::Unavailable(
                "the server is not of the kind that target_session_attrs asks for".into(),
            ));
        }
        Ok(wire.into_transport())
    }

    async fn over_tcp(
        &self,
        mut stream: TcpStream,
        host: &str,
        purpose: Purpose,
    ) -> Result<Box<dyn Transport>, Error> {
        stream.set_nodelay(true).map_err(unreachable)?;
        if self.config.get_keepalives() {
            keep_alive(&stream, &self.config).map_err(unreachable)?;
        }
        let mode = self.config.get_ssl_mode();
        let encrypted = match (mode, self.config.get_ssl_negotiation()) {
            (SslMode::Disable, _) => false,
            (_, SslNegotiation::Direct) => true,
            _ => {
                stream.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
                stream.read_u8().await.map_err(unreachable)? == b'S'
            }
        };
        if !encrypted {
            if mode == SslMode::Require {
                return Err(Error::Tls("the server does not offer TLS, which sslmode demands".into()));
            }
            login(&self.config, &mut stream, NoTls, SslMode::Disable, purpose).await?;
            return Ok(Box::new(stream));
        }
        let mut connector = self.tls.clone();
        let connect = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, host)
            .map_err(|error| Error::Tls(with_sources(&error)))?;
        let mut stream = connect.connect(stream).await.map_err(|error| Error::Tls(with_sources(&error)))?;
        login(&self.config, Encrypted(&mut stream), Already, SslMode::Require, purpose).await?;
        Ok(Box::new(stream))
    }
}

/// Logs in. Nothing is in flight when it is done: Postgres says that it is ready and waits.
async fn login<S, T>(config: &Config, stream: S, tls: T, mode: SslMode, purpose: Purpose) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: TlsConnect<Introduced<S>>,
{
    let mut config = config.clone();
    // A connection that is encrypted already takes the `TlsConnect` at its word at once.
    config.ssl_mode(mode).ssl_negotiation(SslNegotiation::Direct);
    match config.connect_raw(Introduced::new(stream, purpose), tls).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Unavailable(match error.as_db_error() {
            Some(_) => super::super::describe(&error),
            None => with_sources(&error),
        })),
    }
}

fn unreachable(error: io::Error) -> Error {
    Error::Unavailable(format!("error connecting to server: {error}"))
}

/// Without these a vanished server would go unnoticed.
fn keep_alive(stream: &TcpStream, config: &Config) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, config.get_keepalives_idle())?;
    if let Some(interval) = config.get_keepalives_interval() {
        sockopt::set_tcp_keepintvl(stream, interval)?;
    }
    Ok(())
}

/// A TLS stream that is only lent for the login, with the channel that its authentication is bound to.
struct Encrypted<'a>(&'a mut Tls);

impl AsyncRead for Encrypted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Encrypted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

impl TlsStream for Encrypted<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

/// There is nothing left to do to encrypt such a stream.
struct Already;

impl<'a> TlsConnect<Introduced<Encrypted<'a>>> for Already {
    type Stream = Introduced<Encrypted<'a>>;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Introduced<Encrypted<'a>>, Self::Error>>;

    fn connect(self, stream: Introduced<Encrypted<'a>>) -> Self::Future {
        ready(Ok(stream))
    }
}
