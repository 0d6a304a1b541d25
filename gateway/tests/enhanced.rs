//! Enhanced authentication (MQTT 5 §4.12) with an application's own method, over real sockets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use mqtt::codec::{Auth, Connect, Decoder, Packet, ProtocolVersion::V5, Sender};
use tidegate::embed::{
    Broker, ReasonCode, Timestamp,
    admission::{AuthenticationStep, Credentials, EnhancedAuthenticator, ExchangeState, Grant},
};

/// Wants to hear the client identifier backwards.
struct Mirror;

impl EnhancedAuthenticator for Mirror {
    fn method(&self) -> &str {
        "MIRROR"
    }

    fn start(&self, _: Timestamp, client: &Credentials<'_>, _: Option<&[u8]>) -> AuthenticationStep {
        AuthenticationStep::Continue {
            data: Some(client.client_id.as_str().as_bytes().to_vec()),
            state: Box::new(()),
        }
    }

    fn step(
        &self,
        _: Timestamp,
        client: &Credentials<'_>,
        _: ExchangeState,
        data: Option<&[u8]>,
    ) -> AuthenticationStep {
        if data == Some(&mirrored(client.client_id.as_str().as_bytes())) {
            AuthenticationStep::Success {
                data: Some(b"welcome".to_vec()),
                grant: Grant::default(),
            }
        } else {
            AuthenticationStep::Fail(ReasonCode::NotAuthorized)
        }
    }
}

fn mirrored(text: &[u8]) -> Vec<u8> {
    text.iter().rev().copied().collect()
}

struct Client {
    socket: TcpStream,
    received: BytesMut,
}

impl Client {
    fn connect(address: SocketAddr, client_id: &str) -> Client {
        let socket = TcpStream::connect(address).expect("the broker listens");
        let timeout = Some(Duration::from_secs(10));
        socket.set_read_timeout(timeout).expect("a timeout above zero");
        let received = BytesMut::new();
        let mut client = Client { socket, received };
        let mut connect = Connect::new(V5, client_id);
        connect.properties.authentication_method = Some("MIRROR");
        client.send(&Packet::Connect(Box::new(connect)));
        client
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = BytesMut::new();
        packet.encode(V5, u32::MAX, &mut bytes).expect("a valid packet");
        self.socket.write_all(&bytes).expect("the broker reads");
    }

    fn auth(&mut self, reason: ReasonCode, data: &[u8]) {
        self.send(&Packet::Auth(Auth::new(reason, "MIRROR", Some(data))));
    }

    /// Passes the next packet to `check`.
    fn receive<R>(&mut self, check: impl FnOnce(&Packet<'_>) -> R) -> R {
        let decoder = Decoder {
            version: V5,
            sender: Sender::Server,
            max_packet_size: u32::MAX,
        };
        loop {
            if let Some((packet, len)) = decoder.decode(&self.received).expect("a valid packet") {
                let result = check(&packet);
                self.received.advance(len);
                return result;
            }
            let mut bytes = [0; 1024];
            let count = self.socket.read(&mut bytes).expect("an answer in time");
            assert!(count > 0, "the broker closed the connection");
            self.received.extend_from_slice(&bytes[..count]);
        }
    }

    /// AUTH that goes on; its data.
    fn challenge(&mut self) -> Vec<u8> {
        self.receive(|packet| match packet {
            Packet::Auth(auth) if auth.reason == ReasonCode::ContinueAuthentication => {
                auth.properties.authentication_data.unwrap_or_default().to_vec()
            }
            other => panic!("{other:?} instead of a challenge"),
        })
    }

    fn expect_closed(&mut self) {
        assert_eq!(self.socket.read(&mut [0]).expect("an end in time"), 0);
    }
}

/// Whichever of the workers the client's session belongs to.
#[test]
fn clients_are_admitted_and_authenticate_again() {
    let mut broker = Broker::builder()
        .set("listeners.tcp.default.bind", "127.0.0.1:0")
        .set("listeners.ws.default.enable", "false")
        .set("gateway.mqttsn.enable", "false")
        .set("node.workers", "2")
        .set("allow_anonymous", "false")
        .enhanced_authenticator(Mirror)
        .start()
        .unwrap();
    broker.listen().unwrap();
    let (_, address) = broker.listening().next().expect("one listener");
    for name in ["ann", "bob", "cyd", "dan"] {
        let mut client = Client::connect(address, name);
        assert_eq!(client.challenge(), name.as_bytes());
        client.auth(ReasonCode::ContinueAuthentication, &mirrored(name.as_bytes()));
        client.receive(|packet| match packet {
            Packet::ConnAck(connack) => {
                assert_eq!(connack.reason, ReasonCode::Success);
                assert_eq!(connack.properties.authentication_method, Some("MIRROR"));
                assert_eq!(connack.properties.authentication_data, Some(&b"welcome"[..]));
            }
            other => panic!("{other:?} instead of CONNACK"),
        });
        client.auth(ReasonCode::ReAuthenticate, b"");
        client.challenge();
        client.auth(ReasonCode::ContinueAuthentication, &mirrored(name.as_bytes()));
        client.receive(|packet| {
            assert!(matches!(packet, Packet::Auth(auth) if auth.reason == ReasonCode::Success));
        });
        // An answer that is wrong the second time ends what the first one began.
        client.auth(ReasonCode::ReAuthenticate, b"");
        client.challenge();
        client.auth(ReasonCode::ContinueAuthentication, b"?");
        client.receive(|packet| {
            assert!(
                matches!(packet, Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::NotAuthorized)
            );
        });
        client.expect_closed();

        let mut stranger = Client::connect(address, name);
        stranger.challenge();
        stranger.auth(ReasonCode::ContinueAuthentication, b"?");
        stranger.receive(|packet| {
            assert!(
                matches!(packet, Packet::ConnAck(connack) if connack.reason == ReasonCode::NotAuthorized)
            );
        });
        stranger.expect_closed();
    }
    broker.shutdown();
}
