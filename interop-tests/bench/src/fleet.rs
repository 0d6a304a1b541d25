//! Many sensors on one event loop: each with a UDP socket of its own, or many behind a few forwarders.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::UdpSocket};

use crate::sn::{self, Frame};

/// A request that was not answered for so long is sent again.
const RETRY: Duration = Duration::from_secs(2);

/// What a sensor does with what it hears.
pub(crate) enum Next {
    /// It goes on waiting.
    Wait,
    /// This is an answer; it goes on waiting.
    Answer(Vec<u8>),
    /// This is its next request.
    Request(Vec<u8>),
    /// It has done what it was to do.
    Done,
}

/// What is done by some sensors, each by itself.
pub(crate) trait Task {
    /// The first request of this sensor.
    fn begin(&mut self, sensor: usize) -> Vec<u8>;
    /// It hears something.
    fn hear(&mut self, sensor: usize, frame: Frame<'_>) -> Next;
    /// True once nobody is to begin any more.
    fn is_over(&self) -> bool {
        false
    }
}

/// The sensors.
pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    sockets: Vec<UdpSocket>,
    /// Sensors behind each socket; 1: the socket is the sensor.
    behind: usize,
    /// The requests under way: what, and when it was sent.
    waiting: Vec<Option<(Vec<u8>, Instant)>>,
    /// Those that wait, oldest first, with those that wait no more.
    order: VecDeque<(usize, Instant)>,
    pub(crate) repeated: u64,
    buffer: Vec<u8>,
}

impl Fleet {
    /// # Errors
    ///
    /// If the system has not so many sockets to give.
    pub(crate) fn new(server: SocketAddr, sensors: usize, behind: usize) -> io::Result<Fleet> {
        let poll = Poll::new()?;
        let mut sockets = Vec::new();
        for at in 0..sensors.div_ceil(behind) {
            let any: SocketAddr = if server.is_ipv4() {
                ([127, 0, 0, 1], 0).into()
            } else {
                (std::net::Ipv6Addr::LOCALHOST, 0).into()
            };
            let mut socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            poll.registry()
                .register(&mut socket, Token(at), Interest::READABLE)?;
            sockets.push(socket);
        }
        Ok(Fleet {
            poll,
            events: Events::with_capacity(1024),
            sockets,
            behind,
            waiting: vec![None; sensors],
            order: VecDeque::new(),
            repeated: 0,
            buffer: vec![0; 65_536],
        })
    }

    /// Lets each of `who` do the task, `under_way` at a time. Returns how many have, until all have or nothing has
    /// happened for `patience`.
    ///
    /// # Errors
    ///
    /// Those of sockets.
    pub(crate) fn run(
        &mut self,
        task: &mut impl Task,
        mut who: impl Iterator<Item = usize>,
        under_way: usize,
        patience: Duration,
    ) -> io::Result<usize> {
        let (mut done, mut busy, mut last) = (0, 0, Instant::now());
        loop {
            while busy < under_way && !task.is_over() {
                let Some(sensor) = who.next() else { break };
                let request = task.begin(sensor);
                self.request(sensor, request)?;
                busy += 1;
            }
            if busy == 0 || last.elapsed() > patience {
                return Ok(done);
            }
            self.poll
                .poll(&mut self.events, Some(Duration::from_millis(100)))?;
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for socket in ready {
                let (heard, finished) = self.read(socket, task)?;
                if heard {
                    last = Instant::now();
                }
                done += finished;
                busy -= finished.min(busy);
            }
            self.repeat()?;
        }
    }

    /// Reads a socket to its end: mio tells of new datagrams only.
    fn read(&mut self, socket: usize, task: &mut impl Task) -> io::Result<(bool, usize)> {
        let (mut heard, mut done) = (false, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let len = match self.sockets[socket].recv(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The broker was not there a moment ago.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let (sensor, inner) = match self.behind {
                1 => (socket, &buffer[..len]),
                _ => match sn::to_node(&buffer[..len]) {
                    Some((node, inner)) => (node as usize, inner),
                    None => continue,
                },
            };
            if sensor >= self.waiting.len() {
                continue;
            }
            let Some(frame) = sn::parse(inner) else { continue };
            heard = true;
            // What comes late is for nobody.
            if self.waiting[sensor].is_none() {
                continue;
            }
            match task.hear(sensor, frame) {
                Next::Wait => {}
                Next::Answer(answer) => self.send(sensor, &answer)?,
                Next::Request(request) => self.request(sensor, request)?,
                Next::Done => {
                    self.waiting[sensor] = None;
                    done += 1;
                }
            }
        }
        self.buffer = buffer;
        Ok((heard, done))
    }

    fn request(&mut self, sensor: usize, request: Vec<u8>) -> io::Result<()> {
        self.send(sensor, &request)?;
        let now = Instant::now();
        self.waiting[sensor] = Some((request, now));
        self.order.push_back((sensor, now));
        Ok(())
    }

    fn send(&self, sensor: usize, frame: &[u8]) -> io::Result<()> {
        let socket = &self.sockets[sensor / self.behind];
        let sent = match self.behind {
            1 => socket.send(frame),
            _ => socket.send(&sn::of_node(sensor as u32, frame)),
        };
        match sent {
            Ok(_) => Ok(()),
            // Lost, as datagrams are; it is sent again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sends again what was not answered.
    fn repeat(&mut self) -> io::Result<()> {
        while let Some(&(sensor, at)) = self.order.front().filter(|(_, at)| at.elapsed() > RETRY) {
            self.order.pop_front();
            if let Some((request, _)) = self.waiting[sensor].take_if(|(_, sent)| *sent == at) {
                self.repeated += 1;
                self.request(sensor, request)?;
            }
        }
        Ok(())
    }
}
