//! The peer: a relay that does nothing but forward, with the runtime, library and buffers of the server.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Forwards between each connection on a free port, whose address is printed, and one to `upstream` of its own.
pub(crate) fn run(upstream: SocketAddr) -> std::io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                // Either side's end is the end; the generator complains if it was not its own doing.
                let _ = Box::pin(forward(stream, upstream)).await;
            });
        }
    })
}

/// The server's bounds: see `longhouse_server::websocket::Limits` and the speech service's connector.
fn buffers(read: usize) -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(read).write_buffer_size(0).max_write_buffer_size(256 * 1024)
}

async fn forward(stream: TcpStream, upstream: SocketAddr) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let mut caller = tokio_tungstenite::accept_async_with_config(stream, Some(buffers(4 * 1024))).await?;
    let url = format!("ws://{upstream}/");
    let (mut model, _) =
        tokio_tungstenite::connect_async_with_config(url, Some(buffers(8 * 1024)), true).await?;
    loop {
        tokio::select! {
            Some(message) = caller.next() => model.send(message?).await?,
            Some(message) = model.next() => caller.send(message?).await?,
            else => return Ok(()),
        }
    }
}
