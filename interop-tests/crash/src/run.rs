//! One run: broker, clients, kills, and in the end the check.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    broker::{self, Broker, Program, Setup},
    checker::{self, Report},
    history::{BROKER, Fault, History, Recorder, What},
    load::{self, Phase, Shared},
    plan::{Plan, Role, Scope},
    random::Random,
};

/// A start that takes longer than this has failed.
const START_WAIT: Duration = Duration::from_secs(60);
/// The load has to come to rest within this.
const DRAIN_WAIT: Duration = Duration::from_secs(120);
/// A Will or delayed message may still be due for so long after the load has ended.
const LAST_DEADLINE: Duration = Duration::from_millis(7500);

/// A broker with its clients.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) setup: Setup,
    pub(crate) shared: Arc<Shared>,
    random: Random,
    broker: Option<Broker>,
    clients: Vec<JoinHandle<()>>,
    pub(crate) began: Instant,
}

/// Its end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) history: History,
    pub(crate) report: Report,
    pub(crate) seconds: u64,
}

impl Run {
    pub(crate) fn new(setup: Setup, scope: &Scope, seed: u64) -> (Run, Vec<Role>) {
        let plan = Plan::new(scope);
        let shared = Shared::new(Recorder::new(plan.history), seed, setup.address());
        let run = Run {
            setup,
            shared: Arc::new(shared),
            random: Random::named(seed, "kills"),
            broker: None,
            clients: Vec::new(),
            began: Instant::now(),
        };
        (run, plan.roles)
    }

    fn record(&self, what: What) {
        self.shared.recorder.record(BROKER, what);
    }

    pub(crate) fn fail(&self, text: String) -> io::Error {
        self.shared.recorder.notice(BROKER, Fault::Broker, text.clone());
        io::Error::other(text)
    }

    /// Starts the threads of the clients.
    pub(crate) fn clients(&mut self, roles: Vec<Role>) -> io::Result<()> {
        for role in roles {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().spawn(move || load::run(&shared, &role))?;
            self.clients.push(thread);
        }
        Ok(())
    }

    pub(crate) fn start(&mut self) -> io::Result<()> {
        self.record(What::Started);
        self.broker = Some(self.setup.start()?);
        Ok(())
    }

    /// Lets it run until `deadline`, and notes when it is ready. Whether it is.
    fn run_until(&mut self, deadline: Instant, mut was_ready: bool) -> io::Result<bool> {
        loop {
            let Some(running) = &mut self.broker else {
                return Ok(false);
            };
            if let Some(status) = running.ended() {
                self.broker = None;
                return Err(self.fail(format!("the broker ended by itself: {status}")));
            }
            if !was_ready && running.is_ready(&self.setup) {
                was_ready = true;
                self.record(What::Ready);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(was_ready);
            }
            thread::sleep((deadline - now).min(Duration::from_millis(if was_ready { 20 } else { 2 })));
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) -> io::Result<()> {
        self.run_until(Instant::now() + time, true).map(drop)
    }

    pub(crate) fn wait_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_WAIT;
        while Instant::now() < deadline {
            if self.run_until(Instant::now() + Duration::from_millis(5), false)? {
                return Ok(());
            }
        }
        Err(self.fail(format!("the broker is not ready after {START_WAIT:?}")))
    }

    /// Ends it as harshly as the program can bear.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        let Some(broker) = self.broker.take() else {
            return Ok(());
        };
        self.record(What::Killed);
        match self.setup.program {
            Program::Tidegate => broker.kill()?,
            Program::Mosquitto => drop(broker.terminate(Duration::from_secs(20))?),
        }
        self.shared.killed();
        Ok(())
    }

    /// Starts and kills; the time between is random, a quarter of the times so short that it hits the start.
    pub(crate) fn kill_again_and_again(&mut self, kills: u64) -> io::Result<()> {
        for kill in 1..=kills {
            let time = match self.random.below(4) {
                0 => self.random.millis(20, 400),
                _ => self.random.millis(20, 3000),
            };
            self.start()?;
            let deadline = Instant::now() + time;
            let was_ready = self.run_until(deadline, false)?;
            if self.setup.program == Program::Mosquitto && !was_ready {
                self.wait_ready()?;
            }
            self.kill()?;
            if kill % 10 == 0 || kill == kills {
                self.progress(kill, kills);
            }
            if self.random.once_in(5) {
                // Deadlines pass while nothing runs.
                thread::sleep(self.random.millis(300, 2500));
            }
        }
        self.start()?;
        self.wait_ready()
    }

    fn progress(&self, kill: u64, kills: u64) {
        let events = self.shared.recorder.lock().events.len();
        let seconds = self.began.elapsed().as_secs();
        println!("{seconds:>5} s  kill {kill:>4} of {kills}, {events} events");
    }

    /// Ends the load and waits until nothing is on its way.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.shared.enter(Phase::Drain);
        let began = Instant::now();
        self.run_for(LAST_DEADLINE)?;
        while !self.shared.unfinished(Phase::Drain).is_empty() && began.elapsed() < DRAIN_WAIT {
            self.run_for(Duration::from_millis(50))?;
        }
        self.record(What::Drained);
        let seconds = self.began.elapsed().as_secs();
        println!("{seconds:>5} s  drained in {} s", began.elapsed().as_secs());
        let unfinished = self.shared.unfinished(Phase::Drain);
        if !unfinished.is_empty() {
            println!("not at rest: {}", self.names(&unfinished));
        }
        self.shared.enter(Phase::Inspect);
        let began = Instant::now();
        while !self.shared.unfinished(Phase::Inspect).is_empty() && began.elapsed() < Duration::from_secs(20)
        {
            self.run_for(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn names(&self, clients: &[usize]) -> String {
        let history = self.shared.recorder.lock();
        let names: Vec<_> = clients
            .iter()
            .map(|client| history.clients[*client].name.as_str())
            .collect();
        names.join(", ")
    }

    /// Ends clients and broker, and checks what happened.
    pub(crate) fn finish(mut self) -> io::Result<Outcome> {
        self.shared.enter(Phase::Stop);
        for client in self.clients.drain(..) {
            if client.join().is_err() {
                self.shared
                    .recorder
                    .notice(BROKER, Fault::Protocol, "a client's thread panicked".into());
            }
        }
        if let Some(broker) = self.broker.take() {
            match broker.terminate(Duration::from_secs(30)) {
                Ok(status) if status.success() => {}
                Ok(status) => drop(self.fail(format!("after SIGTERM: {status}"))),
                Err(error) => drop(self.fail(format!("after SIGTERM: {error}"))),
            }
        }
        let (panics, first) = broker::panics(&self.setup.log());
        if let Some(first) = first {
            self.fail(format!("{panics} panics in the log, the first: {first}"));
        }
        let seconds = self.began.elapsed().as_secs();
        let history = std::mem::take(&mut *self.shared.recorder.lock());
        let report = checker::check(&history);
        Ok(Outcome {
            history,
            report,
            seconds,
        })
    }
}

/// The setting that every run begins with.
pub(crate) fn setup(
    program: Program,
    executable: PathBuf,
    directory: PathBuf,
    data: PathBuf,
    seed: u64,
) -> io::Result<Setup> {
    Ok(Setup {
        program,
        executable: executable.canonicalize()?,
        directory: directory.canonicalize()?,
        data,
        port: broker::free_port(seed)?,
        settings: Vec::new(),
    })
}
