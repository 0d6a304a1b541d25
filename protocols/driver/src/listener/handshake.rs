//! What has to happen before a connection can carry its protocol: TLS, then the opening handshake of WebSocket.
//! Each runs as a task of its own on the connection's worker, for a limited time, and is gone afterwards.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Core, Mailbox, Permit};
use crate::{
    ConnectionMeta, Counter, Counters, PeerFactory, Service,
    listener::{Arrival, Established},
    socket::Socket,
    tls,
    websocket::upgrade::{self, Answer, HEADER_BYTES_MAX},
    worker::{Command, Io},
};

/// Why a handshake came to nothing.
enum Failure {
    Tls(io::Error),
    WebSocket(String),
}

pub(super) fn spawn(
    core: Arc<Core>,
    stream: Socket,
    meta: ConnectionMeta,
    permit: Permit,
    mailbox: Arc<Mailbox>,
    counters: Arc<Counters>,
) {
    let address = meta.peer;
    let work = async move {
        let result =
            tokio::time::timeout(core.config.handshake_timeout, shake(&core, stream, meta, permit)).await;
        match result {
            Ok(Ok(established)) => {
                let arrival = Arrival::Established(Box::new(established));
                if mailbox.send(Command::Arrival(arrival)).is_err() {
                    core.refuse("worker overloaded");
                }
            }
            Ok(Err(Failure::Tls(error))) => {
                failed(
                    &core,
                    &counters,
                    &counters.tls_handshake_failures,
                    address,
                    "tls_handshake",
                    &error.to_string(),
                );
            }
            Ok(Err(Failure::WebSocket(what))) => {
                failed(
                    &core,
                    &counters,
                    &counters.websocket_handshake_failures,
                    address,
                    "websocket_handshake",
                    &what,
                );
            }
            Err(_) => failed(
                &core,
                &counters,
                &counters.handshake_timeouts,
                address,
                "handshake_timeout",
                "",
            ),
        }
    };
    drop(tokio::spawn(work));
}

/// Counts on the thread of the worker that owns the counters: the task runs on its runtime.
fn failed(
    core: &Core,
    counters: &Counters,
    counter: &Counter,
    address: SocketAddr,
    reason: &'static str,
    detail: &str,
) {
    counter.add(1);
    counters.count_end(reason);
    if let Some(suppressed) = core.failures.allows(core.clock.now()) {
        let listener = &*core.config.info.name;
        tracing::info!(listener, peer = %address, reason, detail, suppressed, "disconnected");
    }
}

async fn shake(
    core: &Core,
    stream: Socket,
    mut meta: ConnectionMeta,
    permit: Permit,
) -> Result<Established, Failure> {
    let Some(config) = core.tls_config() else {
        let (stream, upgraded) = upgrade(core, stream, &mut meta).await?;
        return Ok(upgraded.establish(Io::Tcp(stream), meta, permit));
    };
    // Boxed at once: the state is large, and moving it would make the task as large.
    let stream: Box<TlsStream<Socket>> =
        Box::pin(async { TlsAcceptor::from(config).accept(stream).await.map(Box::new) })
            .await
            .map_err(Failure::Tls)?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    meta.certificate = certificate.and_then(tls::describe).map(Arc::new);
    let (stream, upgraded) = upgrade(core, stream, &mut meta).await?;
    Ok(upgraded.establish(Io::Tls(stream), meta, permit))
}

/// What the service of the listener makes of the stream.
struct Upgraded {
    factory: PeerFactory,
    message_bytes_max: Option<u64>,
    early: Vec<u8>,
}

impl Upgraded {
    fn establish(self, io: Io, meta: ConnectionMeta, permit: Permit) -> Established {
        Established {
            io,
            permit,
            meta,
            factory: self.factory,
            message_bytes_max: self.message_bytes_max,
            early: self.early,
        }
    }
}

/// The opening handshake of WebSocket (RFC 6455 §4.2), if the listener speaks it.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    mut stream: S,
    meta: &mut ConnectionMeta,
) -> Result<(S, Upgraded), Failure> {
    let settings = match &core.config.service {
        Service::Stream(factory) => {
            let factory = factory.clone();
            return Ok((
                stream,
                Upgraded {
                    factory,
                    message_bytes_max: None,
                    early: Vec::new(),
                },
            ));
        }
        Service::WebSocket(settings) => settings,
    };
    let broken = |error: io::Error| Failure::WebSocket(error.to_string());
    let mut request = Vec::new();
    let answer = loop {
        if let Some(answer) = upgrade::answer(&mut request, settings) {
            break answer;
        }
        let mut piece = [0; 1024];
        let room = piece.len().min(HEADER_BYTES_MAX - request.len());
        let count = stream.read(&mut piece[..room]).await.map_err(broken)?;
        if count == 0 {
            return Err(Failure::WebSocket("closed by the client".to_owned()));
        }
        request.extend_from_slice(&piece[..count]);
    };
    match answer {
        Answer::Accept {
            response,
            meta: websocket,
            factory,
        } => {
            stream.write_all(&response).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
            meta.websocket = Some(websocket);
            let message_bytes_max = Some(settings.message_bytes_max);
            Ok((
                stream,
                Upgraded {
                    factory,
                    message_bytes_max,
                    early: request,
                },
            ))
        }
        Answer::Refuse { response, why } => {
            stream.write_all(&response).await.map_err(broken)?;
            stream.shutdown().await.map_err(broken)?;
            Err(Failure::WebSocket(why))
        }
    }
}
