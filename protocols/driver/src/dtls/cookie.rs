//! Cookies (RFC 6347 §4.2.1): who sends a hello with the right one can receive at the address that it came from.
//! They are computed, not kept: a flood of first hellos leaves nothing behind.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use aws_lc_rs::{constant_time, error::Unspecified, hmac, rand};
use broker_core::Timestamp;

use super::{Path, hello::ClientHello};

/// A cookie is good for one to two of these.
const PERIOD: Duration = Duration::from_secs(60);

/// A byte that says which secret, and half of an HMAC.
pub(super) const COOKIE_BYTES: usize = 17;

/// One that this server has made.
pub(super) type Cookie = [u8; COOKIE_BYTES];

/// Makes and checks cookies.
pub(super) struct Cookies {
    current: hmac::Key,
    previous: Option<hmac::Key>,
    /// Of `current`. Only its lowest byte is told.
    generation: u8,
    since: Timestamp,
}

impl Cookies {
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new() -> Result<Cookies, Unspecified> {
        Ok(Cookies {
            current: secret()?,
            previous: None,
            generation: 0,
            since: Timestamp::default(),
        })
    }

    /// The cookie for a hello that came along `path`.
    pub(super) fn make(&mut self, now: Timestamp, path: &Path, hello: &ClientHello<'_>) -> Cookie {
        self.rotate(now);
        compute(&self.current, self.generation, path, hello)
    }

    /// The cookie in `hello`, if it was made for it.
    pub(super) fn verify(&mut self, now: Timestamp, path: &Path, hello: &ClientHello<'_>) -> Option<Cookie> {
        self.rotate(now);
        let key = match hello.cookie.first() {
            Some(&generation) if generation == self.generation => &self.current,
            Some(&generation) if generation == self.generation.wrapping_sub(1) => match &self.previous {
                Some(key) => key,
                None => return None,
            },
            _ => return None,
        };
        let expected = compute(key, hello.cookie[0], path, hello);
        constant_time::verify_slices_are_equal(&expected, hello.cookie).ok()?;
        Some(expected)
    }

    fn rotate(&mut self, now: Timestamp) {
        let age = now.since(self.since);
        if age < PERIOD {
            return;
        }
        // Without random numbers the secret stays: a cookie is then good for longer, which harms less than silence.
        let Ok(fresh) = secret() else { return };
        let old = std::mem::replace(&mut self.current, fresh);
        self.previous = (age < 2 * PERIOD).then_some(old);
        self.generation = self.generation.wrapping_add(1);
        self.since = now;
    }
}

fn secret() -> Result<hmac::Key, Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// Over both addresses and everything that the client says, which it must repeat (RFC 6347 §4.2.1).
fn compute(key: &hmac::Key, generation: u8, path: &Path, hello: &ClientHello<'_>) -> Cookie {
    let mut context = hmac::Context::with_key(key);
    let mut address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            context.update(&[4]);
            context.update(&ip.octets());
        }
        IpAddr::V6(ip) => {
            context.update(&[6]);
            context.update(&ip.octets());
        }
    };
    address(path.remote.ip());
    address(path.local.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    context.update(&path.remote.port().to_be_bytes());
    context.update(hello.before_cookie);
    context.update(hello.after_cookie);
    let tag = context.sign();
    let mut cookie = [generation; COOKIE_BYTES];
    cookie[1..].copy_from_slice(&tag.as_ref()[..COOKIE_BYTES - 1]);
    cookie
}
