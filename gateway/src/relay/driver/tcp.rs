//! One connection to the broker: a task that reads, writes, and tells.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::super::{settings::BrokerUrl, upstream::ConnId};

/// Bytes that may wait for the broker to take them; if there are more when others are to be sent, the connection is given
/// up. What is given at once may be more: everything that was not acknowledged on the connection before.
pub(super) const WAITING_MAX: usize = 8 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// Time for TCP and TLS to be opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a connection to end that is to be closed, whether or not the broker takes what was given before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the broker to close after the gateway has.
const LINGER: Duration = Duration::from_secs(2);

/// Where the broker is, and how to speak TLS with it.
pub(super) struct Target {
    pub(super) url: BrokerUrl,
    pub(super) tls: Option<TlsConnector>,
}

/// What the task tells.
pub(super) enum Happening {
    Opened,
    Input(Bytes),
    Closed(String),
}

enum Order {
    Send(Bytes),
    Close,
}

/// The task, as the others see it. It ends when this is dropped.
pub(super) struct Tcp {
    orders: mpsc::UnboundedSender<Order>,
    /// Bytes of the orders, which so are bounded.
    waiting: Arc<AtomicUsize>,
    is_paused: watch::Sender<bool>,
    is_closing: watch::Sender<bool>,
}

type Tell = mpsc::Sender<(ConnId, Happening)>;

impl Tcp {
    pub(super) fn open(id: ConnId, target: Arc<Target>, tell: Tell) -> Tcp {
        let (orders, received) = mpsc::unbounded_channel();
        let (is_paused, paused) = watch::channel(false);
        let (is_closing, closing) = watch::channel(false);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        tokio::spawn(async move {
            let reason = tokio::select! {
                reason = carry(id, &target, &tell, received, paused, &left) => reason,
                () = given_up(closing) => "closed".to_owned(),
            };
            // The loop has ended if nobody hears it.
            let _ = tell.send((id, Happening::Closed(reason))).await;
        });
        Tcp {
            orders,
            waiting,
            is_paused,
            is_closing,
        }
    }

    /// False, if too much waits already.
    pub(super) fn send(&self, bytes: Bytes) -> bool {
        let len = bytes.len();
        if self.waiting.fetch_add(len, Ordering::Relaxed) > WAITING_MAX {
            return false;
        }
        // A task that has ended tells so.
        let _ = self.orders.send(Order::Send(bytes));
        true
    }

    pub(super) fn pause(&self, is_paused: bool) {
        self.is_paused.send_replace(is_paused);
    }

    pub(super) fn close(&self) {
        self.is_paused.send_replace(false);
        let _ = self.orders.send(Order::Close);
        self.is_closing.send_replace(true);
    }
}

/// Ready when the connection is to end, whatever is under way: at once if nobody has it any more.
async fn given_up(mut closing: watch::Receiver<bool>) {
    let is_asked = closing.wait_for(|is_closing| *is_closing).await.is_ok();
    if is_asked {
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    }
}

async fn carry(
    id: ConnId,
    target: &Target,
    tell: &Tell,
    orders: mpsc::UnboundedReceiver<Order>,
    paused: watch::Receiver<bool>,
    waiting: &AtomicUsize,
) -> String {
    let BrokerUrl { host, port, .. } = &target.url;
    let open = async {
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    };
    let stream = match timeout(OPEN_TIMEOUT, open).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return format!("cannot connect to {}: {error}", target.url),
        Err(_) => return format!("cannot connect to {}: no answer", target.url),
    };
    let Some(tls) = &target.tls else {
        return serve(id, stream, tell, orders, paused, waiting).await;
    };
    let name = match ServerName::try_from(host.clone()) {
        Ok(name) => name,
        Err(error) => return format!("{host}: {error}"),
    };
    match timeout(OPEN_TIMEOUT, tls.connect(name, stream)).await {
        Ok(Ok(stream)) => serve(id, stream, tell, orders, paused, waiting).await,
        Ok(Err(error)) => format!("TLS with {}: {error}", target.url),
        Err(_) => format!("TLS with {}: no answer", target.url),
    }
}

async fn serve(
    id: ConnId,
    stream: impl AsyncRead + AsyncWrite,
    tell: &Tell,
    orders: mpsc::UnboundedReceiver<Order>,
    paused: watch::Receiver<bool>,
    waiting: &AtomicUsize,
) -> String {
    if tell.send((id, Happening::Opened)).await.is_err() {
        return String::new();
    }
    let (reader, writer) = tokio::io::split(stream);
    // Apart from each other: a broker that waits until it is read may not be waited for by the one who should read.
    tokio::select! {
        reason = read(id, reader, tell, paused) => reason,
        reason = write(writer, orders, waiting) => reason,
    }
}

async fn read(
    id: ConnId,
    mut reader: impl AsyncRead + Unpin,
    tell: &Tell,
    mut paused: watch::Receiver<bool>,
) -> String {
    loop {
        if paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return "given up".to_owned();
        }
        match receive(&mut reader).await {
            Ok(bytes) if bytes.is_empty() => return "closed by the broker".to_owned(),
            Ok(bytes) => {
                if tell.send((id, Happening::Input(bytes))).await.is_err() {
                    return String::new();
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// What has come in. A connection that is silent, as most are, owns no buffer.
async fn receive(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    poll_fn(|context| {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut orders: mpsc::UnboundedReceiver<Order>,
    waiting: &AtomicUsize,
) -> String {
    while let Some(Order::Send(bytes)) = orders.recv().await {
        let written = match writer.write_all(&bytes).await {
            Ok(()) => writer.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            return error.to_string();
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    // The broker closes its side, too, which the reader sees.
    if writer.shutdown().await.is_ok() {
        tokio::time::sleep(LINGER).await;
    }
    "closed".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_nobody_has_ends_though_the_broker_takes_nothing() {
        let broker = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", broker.local_addr().unwrap());
        let target = Target {
            url: url.parse().unwrap(),
            tls: None,
        };
        let (tell, mut told) = mpsc::channel(8);
        let tcp = Tcp::open(ConnId(1), Arc::new(target), tell);
        let _stream = broker.accept().await.unwrap();
        assert!(matches!(told.recv().await, Some((_, Happening::Opened))));
        assert!(
            tcp.send(Bytes::from(vec![0; 64 << 20])),
            "however much it is at once"
        );
        assert!(!tcp.send(Bytes::from_static(b"more")));
        drop(tcp);
        let ended = timeout(Duration::from_secs(30), told.recv()).await.unwrap();
        assert!(matches!(ended, Some((_, Happening::Closed(_)))));
    }
}
