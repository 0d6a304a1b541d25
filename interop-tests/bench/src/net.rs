//! Many connections on one event loop.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::{Domain, Socket, Type};

use crate::wire::{self, Packet};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 << 10;
/// Source addresses on loopback: each has its own ephemeral ports.
const SOURCES: u32 = 200;

/// What a scenario does with its connections. `link` is the number that [`Net::open`] gave.
pub(crate) trait Client {
    /// A packet came; answers are appended to `out`.
    fn packet(&mut self, link: usize, packet: Packet<'_>, out: &mut Vec<u8>);
    /// The connection has ended; `link` may be given to another one.
    fn closed(&mut self, link: usize);
}

struct Link {
    stream: Option<TcpStream>,
    v5: bool,
    /// Connected, as far as the socket has told.
    writable: bool,
    /// The start of a packet whose rest has not come.
    partial: Vec<u8>,
    out: Vec<u8>,
    written: usize,
}

/// All connections of a run.
pub(crate) struct Net {
    server: SocketAddr,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    free: Vec<usize>,
    opened: u32,
    buffer: Vec<u8>,
    began: Instant,
}

impl Net {
    /// # Errors
    ///
    /// If the system has no event queue to give.
    pub(crate) fn new(server: SocketAddr) -> io::Result<Net> {
        Ok(Net {
            server,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            links: Vec::new(),
            free: Vec::new(),
            opened: 0,
            buffer: vec![0; READ_BYTES],
            began: Instant::now(),
        })
    }

    /// Microseconds since the start.
    pub(crate) fn micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Begins to connect. What is put into [`Net::out`] leaves when the connection stands.
    ///
    /// # Errors
    ///
    /// If there is no socket or no port left.
    pub(crate) fn open(&mut self, v5: bool) -> io::Result<usize> {
        let socket = Socket::new(Domain::for_address(self.server), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.server.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let source = Ipv4Addr::new(127, 0, 1, (1 + self.opened % SOURCES) as u8);
            socket.bind(&SocketAddr::new(source.into(), 0).into())?;
        }
        self.opened += 1;
        match socket.connect(&self.server.into()) {
            Err(error) if error.raw_os_error() != Some(115) && error.kind() != ErrorKind::WouldBlock => {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let link = self.free.pop().unwrap_or(self.links.len());
        self.poll
            .registry()
            .register(&mut stream, Token(link), Interest::READABLE | Interest::WRITABLE)?;
        let opened = Link {
            stream: Some(stream),
            v5,
            writable: false,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
        };
        match self.links.get_mut(link) {
            Some(place) => *place = opened,
            None => self.links.push(opened),
        }
        Ok(link)
    }

    /// What is to be sent; [`Net::flush`] sends it.
    pub(crate) fn out(&mut self, link: usize) -> &mut Vec<u8> {
        &mut self.links[link].out
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn unsent(&self, link: usize) -> usize {
        self.links[link].out.len() - self.links[link].written
    }

    /// Sends what is to be sent, as far as the socket takes it.
    pub(crate) fn flush(&mut self, link: usize) {
        let link = &mut self.links[link];
        let Some(stream) = link.stream.as_mut().filter(|_| link.writable) else {
            return;
        };
        while link.written < link.out.len() {
            match stream.write(&link.out[link.written..]) {
                Ok(written) => link.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    link.writable = false;
                    break;
                }
                // The end is told when it is read.
                Err(_) => break,
            }
        }
        if link.written == link.out.len() {
            link.out.clear();
            link.written = 0;
        } else if link.written > READ_BYTES {
            link.out.drain(..link.written);
            link.written = 0;
        }
    }

    /// Waits for at most `timeout`, hands what came to `client`, and sends the answers.
    ///
    /// # Errors
    ///
    /// If waiting fails, or what came is no MQTT.
    pub(crate) fn turn(&mut self, timeout: Duration, client: &mut impl Client) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let ready: Vec<_> = self
            .events
            .iter()
            .map(|event| (event.token().0, event.is_writable(), event.is_readable()))
            .collect();
        for (link, writable, readable) in ready {
            if self.links[link].stream.is_none() {
                continue;
            }
            if writable {
                self.links[link].writable = true;
                self.flush(link);
            }
            if readable {
                self.read(link, client)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, number: usize, client: &mut impl Client) -> io::Result<()> {
        loop {
            let link = &mut self.links[number];
            let Some(stream) = link.stream.as_mut() else {
                return Ok(());
            };
            let before = link.partial.len();
            let room = READ_BYTES.max(before + READ_BYTES / 2);
            self.buffer.resize(room, 0);
            self.buffer[..before].copy_from_slice(&link.partial);
            link.partial.clear();
            let read = match stream.read(&mut self.buffer[before..]) {
                Ok(0) => 0,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    link.partial.extend_from_slice(&self.buffer[..before]);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            if read == 0 {
                self.close(number);
                client.closed(number);
                return Ok(());
            }
            let filled = before + read;
            let mut at = 0;
            while let Some((packet, length)) = wire::take(&self.buffer[at..filled], link.v5)
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, "the broker sent no MQTT"))?
            {
                client.packet(number, packet, &mut link.out);
                at += length;
            }
            link.partial.extend_from_slice(&self.buffer[at..filled]);
            if filled < self.buffer.len() {
                break;
            }
            self.flush(number);
        }
        self.flush(number);
        Ok(())
    }

    /// Ends a connection here, without a word to the broker.
    pub(crate) fn close(&mut self, link: usize) {
        if let Some(mut stream) = self.links[link].stream.take() {
            // A socket that is closed is not polled, registered or not.
            let _ = self.poll.registry().deregister(&mut stream);
            self.links[link].out = Vec::new();
            self.links[link].partial = Vec::new();
            self.free.push(link);
        }
    }
}
