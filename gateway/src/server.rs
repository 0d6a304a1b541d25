//! `tidegate start`: a node in the foreground, until a signal ends it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use broker_core::store::{Fault, KvError};
use driver::ListenError;
use store::OpenError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::{RUNTIME_FAILURE, STORE_UNUSABLE, USAGE_ERROR},
    config::{self, ConfigErrors, Loaded, Origin, Settings, Sources},
    node::{Extensions, Node, RestoreError, StartError},
    telemetry,
};

/// Runs a node from `sources`. Prints on standard output what listens where, then `ready`. SIGTERM and SIGINT end
/// it in order, SIGHUP reads the configuration anew.
pub fn run(sources: &Sources) -> ExitCode {
    let loaded = match read(sources) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let _log = telemetry::install(loaded.settings.log);
    end_with_a_worker();
    match serve(sources, &loaded.settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", located(&loaded, &error));
            ExitCode::from(status(&error))
        }
    }
}

/// The configuration, and a look at every file that it names: what is wrong there is told with the line that names it.
fn read(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let loaded = config::load(sources)?;
    config::check_files(&loaded)?;
    Ok(loaded)
}

/// Whether it helps to start again.
fn status(error: &StartError) -> u8 {
    match error {
        StartError::Store(error) if needs_operator(error) => STORE_UNUSABLE,
        // Damage that is found when the entries are read.
        StartError::Restore(RestoreError::Store(KvError::Fault(Fault::Failed(_)))) => STORE_UNUSABLE,
        _ => RUNTIME_FAILURE,
    }
}

/// Another process may end and room may be made; the rest stays as it is.
fn needs_operator(error: &OpenError) -> bool {
    !matches!(
        error,
        OpenError::Locked { .. } | OpenError::Full(_) | OpenError::Io { .. }
    )
}

/// An address or directory that cannot be used stands somewhere in the configuration, too.
fn located(loaded: &Loaded, error: &StartError) -> String {
    let key = match error {
        StartError::Listen(ListenError::Bind(bind)) => Some(bind_key(&bind.listener)),
        StartError::Store(_) | StartError::Restore(_) => Some("node.data_dir".to_owned()),
        _ => None,
    };
    if let Some(key) = key
        && let origin @ (Origin::File { .. } | Origin::Environment(_) | Origin::Argument(_)) =
            loaded.origin(&key)
    {
        return format!("{origin}: {error}");
    }
    format!("tidegate: {error}")
}

/// The key of a listener's address, by its id: `tcp:default`, `mqttsn:udp:default`.
fn bind_key(listener: &str) -> String {
    match *listener.split(':').collect::<Vec<_>>() {
        [gateway, kind, name] => format!("gateway.{gateway}.listeners.{kind}.{name}.bind"),
        _ => format!("listeners.{}.bind", listener.replacen(':', ".", 1)),
    }
}

fn serve(sources: &Sources, settings: &Settings) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _context = runtime.enter();
    // Before the node: a signal that comes early must not kill it half-way.
    let mut signals = Signals::new()?;
    let mut node = Node::start(settings, Extensions::new())?;
    node.listen(settings)?;
    announce(&node, settings)?;
    runtime.block_on(async {
        while let Event::Reload = signals.next().await {
            reload(&mut node, sources);
        }
    });
    tracing::info!("shutting down");
    node.shutdown();
    Ok(())
}

/// A worker that panics takes its shard with it, and the others would wait for its answers for ever. So the process
/// ends, and whoever supervises it starts it again.
fn end_with_a_worker() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("worker-"))
        {
            eprintln!("tidegate: a worker has panicked; the process ends");
            std::process::abort();
        }
    }));
}

fn announce(node: &Node, settings: &Settings) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, address) in node.listening() {
        writeln!(out, "listening {name} {address}")?;
    }
    for listener in &settings.listeners {
        if let Some(reason) = listener.disabled_because() {
            writeln!(out, "not listening {}: {reason}", listener.id())?;
        }
    }
    for listener in &settings.mqttsn.listeners {
        if let Some(reason) = settings.mqttsn.disabled_because(listener) {
            writeln!(out, "not listening {}: {reason}", listener.id())?;
        }
    }
    writeln!(out, "ready")?;
    out.flush()
}

fn reload(node: &mut Node, sources: &Sources) {
    // Files are looked at first, so that a fault in one changes nothing.
    match read(sources) {
        Ok(loaded) => match node.reload(&loaded.settings) {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => tracing::error!(%error, "configuration not reloaded; the old one stays"),
        },
        Err(errors) => tracing::error!(%errors, "configuration not reloaded; the old one stays"),
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

enum Event {
    Reload,
    End,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hangup.recv() => Event::Reload,
            _ = self.interrupt.recv() => Event::End,
            _ = self.terminate.recv() => Event::End,
        }
    }
}
