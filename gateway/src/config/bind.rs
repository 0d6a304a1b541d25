//! Addresses of listeners.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The address of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// `None`: every address of the machine, IPv4 and IPv6. `::` takes IPv4 clients too.
    pub address: Option<IpAddr>,
    /// Port; 0: the system chooses one.
    pub port: u16,
}

impl Bind {
    /// The addresses to try, in order, until one can be bound. An IPv6 wildcard socket is to be opened for both
    /// families (`IPV6_V6ONLY` off, RFC 3493 §5.3); the IPv4 one stands in where the machine has no IPv6.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        match self.address {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => vec![
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port),
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port),
            ],
        }
    }

    /// True if both cannot be bound at once. Port 0 never collides.
    pub fn collides_with(&self, other: &Bind) -> bool {
        if self.port != other.port || self.port == 0 {
            return false;
        }
        match (self.one_family(), other.one_family()) {
            (Some(a), Some(b)) => {
                a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
            }
            _ => true,
        }
    }

    /// The address, unless it takes clients of both families.
    fn one_family(&self) -> Option<IpAddr> {
        self.address.filter(|address| *address != Ipv6Addr::UNSPECIFIED)
    }
}

impl FromStr for Bind {
    type Err = &'static str;

    /// `1883`, `:1883`, `127.0.0.1:1883`, `[::1]:1883`.
    fn from_str(text: &str) -> Result<Bind, &'static str> {
        let port = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            match digits.parse() {
                Ok(port) if is_number => Ok(port),
                Err(_) if is_number => Err("has a port above 65535"),
                _ => Err("is not an address with a port"),
            }
        };
        if let Some(digits) = text
            .strip_prefix(':')
            .or(Some(text).filter(|text| !text.contains(':')))
        {
            return Ok(Bind {
                address: None,
                port: port(digits)?,
            });
        }
        let (address, digits) = text.rsplit_once(':').ok_or("is not an address with a port")?;
        let address = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse().map(IpAddr::V6).ok(),
            None => address.parse().map(IpAddr::V4).ok(),
        };
        match address {
            Some(address) => Ok(Bind {
                address: Some(address),
                port: port(digits)?,
            }),
            None if text.parse::<Ipv6Addr>().is_ok() => {
                Err("lacks the brackets of an IPv6 address: [ADDRESS]:PORT")
            }
            None => Err("does not start with an IP address (names are not looked up)"),
        }
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => self.port.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, canonical) in [
            ("1883", "1883"),
            (":1883", "1883"),
            ("0", "0"),
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:1883", "[::1]:1883"),
            ("[0:0::0]:1883", "[::]:1883"),
        ] {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), canonical, "{text}");
        }
        for (text, problem) in [
            ("", "is not an address with a port"),
            (":", "is not an address with a port"),
            ("+1883", "is not an address with a port"),
            ("65536", "has a port above 65535"),
            ("127.0.0.1", "is not an address with a port"),
            ("127.0.0.1:", "is not an address with a port"),
            ("::1", "is not an address with a port"),
            (
                "2001:db8::1",
                "lacks the brackets of an IPv6 address: [ADDRESS]:PORT",
            ),
            (
                "localhost:1883",
                "does not start with an IP address (names are not looked up)",
            ),
            (
                "[127.0.0.1]:1883",
                "does not start with an IP address (names are not looked up)",
            ),
        ] {
            assert_eq!(text.parse::<Bind>(), Err(problem), "{text}");
        }
    }

    #[test]
    fn collisions() {
        for (a, b, expected) in [
            ("1883", "1884", false),
            ("1883", "1883", true),
            ("1883", "127.0.0.1:1883", true),
            ("[::]:1883", "127.0.0.1:1883", true),
            ("0.0.0.0:1883", "127.0.0.1:1883", true),
            ("0.0.0.0:1883", "[::1]:1883", false),
            ("127.0.0.1:1883", "127.0.0.2:1883", false),
            ("127.0.0.1:1883", "127.0.0.1:1883", true),
            ("0", "0", false),
        ] {
            let (first, second): (Bind, Bind) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(first.collides_with(&second), expected, "{a} {b}");
            assert_eq!(second.collides_with(&first), expected, "{b} {a}");
        }
    }
}
