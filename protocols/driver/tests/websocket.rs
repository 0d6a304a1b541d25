//! WebSocket: opening handshake, frames, violations, ends.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use common::*;
use driver::{Listener, ListenerConfig, Service, WebSocketSettings, WorkerConfig, Workers};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A raw request with these headers added.
fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).expect("a short payload").to_be_bytes());
        }
    }
    let key = [1, 2, 3, 4];
    bytes.extend(key);
    bytes.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// One frame of the server: opcode and payload.
async fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.expect("a frame");
    let len = match stream.read_u8().await.expect("a length") {
        126 => u64::from(stream.read_u16().await.expect("a length")),
        127 => stream.read_u64().await.expect("a length"),
        len => u64::from(len),
    };
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).await.expect("a payload");
    assert_eq!(first & 0xf0, 0x80, "a whole message without extension");
    (first & 0x0f, payload)
}

async fn answer(listener: &Listener, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(listener.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a response"));
    }
    (stream, String::from_utf8(head).expect("text"))
}

async fn open(listener: &Listener) -> TcpStream {
    let (stream, head) = answer(listener, &request("/echo", "Sec-WebSocket-Protocol: mqtt\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

fn start(change: impl FnOnce(&mut WebSocketSettings, &mut ListenerConfig)) -> (Workers, Listener) {
    let workers = workers(1, &WorkerConfig::default());
    let mut config = websocket_config();
    let Service::WebSocket(mut settings) = config.service.clone() else {
        unreachable!()
    };
    change(&mut settings, &mut config);
    config.service = Service::WebSocket(settings);
    let listener = listen(&workers, config);
    (workers, listener)
}

#[test]
fn a_common_client_library_gets_its_packets_back() {
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    let (_workers, listener) = start(|_, _| ());
    run(async {
        let stream = TcpStream::connect(listener.address()).await.unwrap();
        let mut request = format!("ws://{}/echo", listener.address())
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            "Sec-WebSocket-Protocol",
            "unknown, mqttv3.1, mqtt".parse().unwrap(),
        );
        let (mut client, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqttv3.1");

        let body: Vec<u8> = (0..700_000u32).map(|n| (n % 239) as u8).collect();
        let bytes = [packet(&body), packet(b"whoami"), packet(b"last")].concat();
        for piece in bytes.chunks(100_001) {
            socket_send(&mut client, Message::binary(piece.to_vec())).await;
        }
        let expected = [
            packet(&body),
            packet(b"None Some(\"mqttv3.1\") ws:test"),
            packet(b"last"),
        ]
        .concat();
        let mut received = Vec::new();
        while received.len() < expected.len() {
            match socket_next(&mut client).await {
                Message::Binary(data) => received.extend_from_slice(&data),
                other => panic!("unexpected {other:?}"),
            }
        }
        assert!(received == expected);

        socket_send(&mut client, Message::Ping(vec![1, 2, 3].into())).await;
        assert_eq!(
            socket_next(&mut client).await,
            Message::Pong(vec![1, 2, 3].into())
        );
        client.close(None).await.unwrap();
        assert!(matches!(socket_next(&mut client).await, Message::Close(_)));
    });
}

type Client = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn socket_send(client: &mut Client, message: tokio_tungstenite::tungstenite::Message) {
    client.send(message).await.expect("writable");
}

async fn socket_next(client: &mut Client) -> tokio_tungstenite::tungstenite::Message {
    client.next().await.expect("a message").expect("no error")
}

#[test]
fn packets_and_frames_need_not_be_aligned() {
    let (_workers, listener) = start(|_, _| ());
    run(async {
        let mut stream = open(&listener).await;
        let bytes = [packet(b"one"), packet(b"two")].concat();
        let mut frames = frame(0x02, &bytes[..3]);
        frames.extend(frame(0x89, b"ping"));
        frames.extend(frame(0x80, &bytes[3..9]));
        frames.extend(frame(0x82, &bytes[9..]));
        for byte in frames {
            stream.write_all(&[byte]).await.unwrap();
        }
        let mut received = Vec::new();
        let mut pongs = 0;
        while received.len() < bytes.len() {
            match read_frame(&mut stream).await {
                (0x2, data) => received.extend(data),
                (0xa, data) => {
                    assert_eq!(data, b"ping");
                    pongs += 1;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!((received, pongs), (bytes, 1));
    });
}

#[test]
fn bytes_behind_the_handshake_are_not_lost() {
    let (_workers, listener) = start(|_, _| ());
    run(async {
        let mut bytes = request("/echo", "").into_bytes();
        bytes.extend(frame(0x82, &packet(b"early")));
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        // The example of RFC 6455 §1.3.
        assert!(
            head.to_lowercase()
                .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        assert!(
            !head.to_lowercase().contains("sec-websocket-protocol"),
            "none was offered"
        );
        assert_eq!(read_frame(&mut stream).await, (0x2, packet(b"early")));
    });
}

#[test]
fn violations_are_answered_with_their_code() {
    let (workers, listener) = start(|settings, _| settings.message_bytes_max = 1000);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("text", frame(0x81, b"hello"), 1003),
        ("unmasked", vec![0x82, 0x01, b'x'], 1002),
        ("oversize", frame(0x82, &[0; 1001]), 1009),
        (
            "oversize in fragments",
            [frame(0x02, &[0xff; 100]), frame(0x80, &[0; 901])].concat(),
            1009,
        ),
        ("reserved bit", frame(0xc2, b"x"), 1002),
    ];
    run(async {
        let total = cases.len() as u64;
        for (name, bytes, code) in cases {
            let mut stream = open(&listener).await;
            let mut all = frame(0x82, &packet(b"first"));
            all.extend(bytes);
            stream.write_all(&all).await.unwrap();
            assert_eq!(read_frame(&mut stream).await, (0x2, packet(b"first")), "{name}");
            let (opcode, payload) = read_frame(&mut stream).await;
            assert_eq!((opcode, payload), (0x8, code.to_be_bytes().to_vec()), "{name}");
            assert_eq!(rest(&mut stream).await, b"", "{name}");
        }
        until(|| count(&workers, "connections_closed") == total).await;
        assert_eq!(count(&workers, "closed_websocket_violation"), total);
    });
}

#[test]
fn close_frames_are_answered_and_come_last() {
    let (workers, listener) = start(|_, _| ());
    run(async {
        let mut stream = open(&listener).await;
        stream
            .write_all(&[frame(0x82, &packet(b"x")), frame(0x88, &[0x03, 0xe9])].concat())
            .await
            .unwrap();
        assert_eq!(read_frame(&mut stream).await, (0x2, packet(b"x")));
        assert_eq!(read_frame(&mut stream).await, (0x8, vec![0x03, 0xe9]));
        assert_eq!(rest(&mut stream).await, b"");
        until(|| count(&workers, "closed_by_client") == 1).await;

        let mut stream = open(&listener).await;
        stream.write_all(&frame(0x82, &packet(b"bye"))).await.unwrap();
        assert_eq!(read_frame(&mut stream).await, (0x2, packet(b"bye")));
        assert_eq!(read_frame(&mut stream).await, (0x8, vec![0x03, 0xe8]));
        assert_eq!(rest(&mut stream).await, b"");
    });
}

#[test]
fn requests_that_are_no_upgrade_are_told_why() {
    let (workers, listener) =
        start(|settings, _| settings.allowed_origins = vec!["https://good.example".to_owned()]);
    let good = "Origin: https://GOOD.example\r\n";
    let cases = [
        (request("/other", good), "404"),
        (request("/echo", "Origin: null\r\n"), "403"),
        (request("/echo", "Origin: https://evil.example\r\n"), "403"),
        (
            request("/echo", &format!("{good}Sec-WebSocket-Protocol: soap\r\n")),
            "400",
        ),
        (request("/echo", good).replace("Version: 13", "Version: 8"), "426"),
        (request("/echo", good).replace(KEY, "short"), "400"),
        (
            request("/echo", good).replace("Upgrade: websocket\r\n", ""),
            "426",
        ),
        (request("/echo", good).replace("Host: localhost\r\n", ""), "400"),
        (request("/echo", good).replace("GET", "POST"), "405"),
        (
            request("/echo", &format!("Padding: {}\r\n", "x".repeat(9000))),
            "431",
        ),
        ("\u{10}\u{c}\0\u{4}MQTT\u{4}".to_owned(), "400"),
    ];
    run(async {
        let total = cases.len() as u64;
        for (request, status) in cases {
            let (_, head) = answer(&listener, &request).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}")),
                "{head} to {request:?}"
            );
        }
        until(|| count(&workers, "websocket_handshake_failures") == total).await;
        let (_, head) = answer(&listener, &request("/echo?token=1", good)).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    });
}

#[test]
fn a_subprotocol_can_be_demanded() {
    let (_workers, listener) = start(|settings, _| settings.routes[0].subprotocol_required = true);
    run(async {
        let (_, head) = answer(&listener, &request("/echo", "")).await;
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        open(&listener).await;
    });
}

#[test]
fn a_handshake_has_a_time_limit() {
    let (workers, listener) =
        start(|_, config| config.handshake_timeout = std::time::Duration::from_millis(50));
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        stream.write_all(b"GET /echo HTTP/1.1\r\n").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
        until(|| count(&workers, "handshake_timeouts") == 1 && listener.connections() == 0).await;
    });
}

/// A client need not wait for anything before it says goodbye; what it said counts, whichever worker it belongs to.
#[test]
fn what_came_before_a_goodbye_in_the_same_breath_counts() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen(&workers, websocket_config());
    let plain = listen(&workers, stream_config());
    run(async {
        let mut reader = TcpStream::connect(plain.address()).await.unwrap();
        for body in ["connect reader", "subscribe t"] {
            send(&mut reader, body.as_bytes()).await;
            receive(&mut reader).await;
        }
        for number in 0..10 {
            let mut writer = open(&listener).await;
            let said = [
                packet(format!("connect w{number}").as_bytes()),
                packet(b"publish t"),
            ];
            let breath = [frame(0x82, &said.concat()), frame(0x88, b"")].concat();
            writer.write_all(&breath).await.unwrap();
            assert_eq!(receive(&mut reader).await, b"hello");
            rest(&mut writer).await;
        }
    });
    assert!(count(&workers, "links_moved") > 0);
}
