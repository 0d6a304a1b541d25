//! A sensor that speaks DTLS: the client of webrtc-dtls.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    net::UdpSocket,
    runtime::{Builder, Runtime},
    time::timeout,
};
use webrtc_dtls::{Error, cipher_suite::CipherSuiteId, config::Config, conn::DTLSConn};

use super::sensor::{Carrier, PATIENCE, Sensor};

/// An association with the gateway, from a socket of its own. Its tasks run whenever somebody waits for something.
pub(crate) struct Secured {
    association: DTLSConn,
    runtime: Runtime,
}

impl Secured {
    /// A sensor with a pre-shared key. An error: the gateway does not want it.
    pub(crate) fn dial(gateway: SocketAddr, identity: &str, key: &str) -> Result<Sensor<Secured>, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let key = key.as_bytes().to_vec();
        let config = Config {
            cipher_suites: vec![CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8],
            psk: Some(Arc::new(move |_| Ok(key.clone()))),
            psk_identity_hint: Some(identity.as_bytes().to_vec()),
            ..Config::default()
        };
        // rustls has two providers where webrtc-dtls is, and asks for one; the result says whether it knew.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let association = runtime.block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(gateway).await.unwrap();
            let handshake = DTLSConn::new(Arc::new(socket), config, true, None);
            timeout(PATIENCE, handshake).await.unwrap()
        })?;
        Ok(Sensor(Secured { association, runtime }))
    }

    /// Says goodbye, and forgets all keys.
    pub(crate) fn close(&self) {
        self.runtime.block_on(self.association.close()).unwrap();
    }

    /// Waits until the gateway says goodbye.
    pub(crate) fn wait_for_close(&self) {
        let mut buffer = [0; 1024];
        let read = self.association.read(&mut buffer, Some(PATIENCE));
        let ended = self.runtime.block_on(read).unwrap_err();
        assert_eq!(ended, Error::ErrAlertFatalOrClose);
    }
}

impl Carrier for Secured {
    fn send(&self, datagram: &[u8]) {
        let written = self.association.write(datagram, Some(PATIENCE));
        self.runtime.block_on(written).unwrap();
    }

    fn receive(&self, buffer: &mut [u8]) -> usize {
        let read = self.association.read(buffer, Some(PATIENCE));
        self.runtime.block_on(read).unwrap()
    }
}
