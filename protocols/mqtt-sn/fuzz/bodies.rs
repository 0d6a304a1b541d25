//! What the fuzz target of the codec checks, apart from how bytes are made up: `cargo fuzz` and the test `fuzz` share it.

use bytes::BytesMut;
use mqtt_sn::codec::{Message, Node};

/// Decoding never panics; what was decoded survives being written and read again; so does what refuses the rest.
pub fn decode(data: &[u8]) {
    match Message::decode(data) {
        Ok(message) => {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(out.len(), message.encoded_len());
            assert!(out.len() <= data.len());
            assert_eq!(Message::decode(&out), Ok(message));
        }
        Err(error) => {
            assert!(!error.word().is_empty() && !error.clause.is_empty());
            if let Some(refusal) = error.refusal {
                let mut out = BytesMut::new();
                refusal.encode(&mut out);
                assert!(
                    out.len() <= data.len() + 3,
                    "a refusal is no longer than its fields"
                );
                assert_eq!(Message::decode(&out), Ok(refusal));
            }
        }
    }
    if let Ok(node) = Node::decode(data) {
        assert!(Node::is_envelope(data));
        let mut out = BytesMut::new();
        node.encode(&mut out);
        assert_eq!(out.len(), data.len());
        assert_eq!(Node::decode(&out), Ok(node));
    }
}
