//! Settings of the stand-alone gateway.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// The broker's side of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where the broker is.
    pub broker: BrokerUrl,
    /// One connection for each client, or one for all.
    pub mode: Mode,
    /// For clients that bring none (`gateway.mqttsn.clientinfo_override`), and for the one connection of all.
    pub username: Option<String>,
    /// The password that belongs to it.
    pub password: Option<Vec<u8>>,
    /// PEM file with the certificates of those who may sign the broker's certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM files: the gateway's own certificate with the intermediate ones after it, and its private key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Time after which the gateway says to the broker that it is there, whatever its clients do: 1 s to 65 535 s.
    pub keep_alive: Duration,
    /// Messages that wait for one client.
    pub queue_messages: usize,
    /// Their memory, bytes.
    pub queue_bytes: usize,
    /// Sessions of clients that are away, of which something is kept here.
    pub sessions_max: usize,
}

/// How clients are connected to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each over a connection of its own, under its own client id.
    Transparent,
    /// All over one connection.
    Aggregated {
        /// The gateway's client id.
        client_id: String,
        /// Its session at the broker outlives the connection.
        is_persistent: bool,
    },
}

/// `mqtt://host:port` or `mqtts://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Name or address, that of IPv6 without brackets.
    pub host: String,
    /// Port; by default 1883, with TLS 8883.
    pub port: u16,
    /// `mqtts`.
    pub is_tls: bool,
}

/// Why a text is no [`BrokerUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Neither `mqtt://` nor `mqtts://`.
    #[error("it starts neither with mqtt:// nor with mqtts://")]
    Scheme,
    /// There is an `@`.
    #[error("user name and password do not belong here: use --username and --password-file")]
    Credentials,
    /// There is no host, or something follows the port.
    #[error("it is not mqtt://HOST or mqtt://HOST:PORT")]
    Authority,
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<BrokerUrl, BrokerUrlError> {
        let (is_tls, rest) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(BrokerUrlError::Scheme),
        };
        if rest.contains('@') {
            return Err(BrokerUrlError::Credentials);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(BrokerUrlError::Authority)?;
                host.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| BrokerUrlError::Authority)?;
                match rest {
                    "" => (host, None),
                    rest => (
                        host,
                        Some(rest.strip_prefix(':').ok_or(BrokerUrlError::Authority)?),
                    ),
                }
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let is_name = |char: char| !char.is_whitespace() && !"/?#[]".contains(char);
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(BrokerUrlError::Authority);
        }
        let port = match port {
            None => {
                if is_tls {
                    8883
                } else {
                    1883
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| BrokerUrlError::Authority)?
            }
            Some(_) => return Err(BrokerUrlError::Authority),
        };
        Ok(BrokerUrl {
            host: host.to_owned(),
            port,
            is_tls,
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Reads the first line of a file: a password.
///
/// # Errors
///
/// If the file cannot be read.
pub fn read_password(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_brokers() {
        for (text, host, port, is_tls) in [
            ("mqtt://broker", "broker", 1883, false),
            ("mqtts://broker.example/", "broker.example", 8883, true),
            ("mqtt://127.0.0.1:1885", "127.0.0.1", 1885, false),
            ("mqtts://[::1]:1", "::1", 1, true),
            ("mqtt://[::1]", "::1", 1883, false),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(
                (url.host.as_str(), url.port, url.is_tls),
                (host, port, is_tls),
                "{text}"
            );
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
        for (text, error) in [
            ("broker:1883", BrokerUrlError::Scheme),
            ("mqtt://alice:secret@broker", BrokerUrlError::Credentials),
            ("mqtt://", BrokerUrlError::Authority),
            ("mqtt://broker/path", BrokerUrlError::Authority),
            ("mqtt://broker:", BrokerUrlError::Authority),
            ("mqtt://broker:70000", BrokerUrlError::Authority),
            ("mqtt://broker:+1", BrokerUrlError::Authority),
            ("mqtt://[::1", BrokerUrlError::Authority),
            ("mqtt://[broker]", BrokerUrlError::Authority),
        ] {
            assert_eq!(text.parse::<BrokerUrl>(), Err(error), "{text}");
        }
    }
}
