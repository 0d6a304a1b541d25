//! The same load on a file system that misbehaves: full, read-only, or stalled. Needs root and mounts.
//!
//! What is expected while it lasts: publishers that need the store are slowed or refused, traffic that needs no store
//! goes on, and `$SYS` tells of it. When it is over, everything goes on; nothing acknowledged was lost.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    history::{BROKER, Fault, What},
    judge,
    options::{Mode, Options},
    plan::Role,
    run::{self, Run},
    scope, table,
};

/// Of the file system.
const SIZE: u64 = 256 << 20;
/// How long it misbehaves.
const BAD_TIME: Duration = Duration::from_secs(6);
/// Until a broker has to acknowledge again, once the reason not to has gone.
const RECOVERY_WAIT: Duration = Duration::from_secs(30);

impl Mode {
    const fn title(self) -> &'static str {
        match self {
            Mode::Full => "full disk",
            Mode::ReadOnly => "read-only disk",
            Mode::Slow => "stalled disk",
        }
    }
}

/// A file system made for one run; it goes when this is dropped.
#[derive(Debug)]
struct FileSystem {
    image: PathBuf,
    mount: PathBuf,
}

fn command(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "{program} {}: {said}",
        arguments.join(" ")
    )))
}

impl FileSystem {
    /// An ext4 in a file, mounted by a loop device; after an error it turns read-only.
    fn new(directory: &Path) -> io::Result<FileSystem> {
        let image = directory.join("image");
        let mount = directory.join("mount");
        fs::create_dir_all(&mount)?;
        File::create(&image)?.set_len(SIZE)?;
        command("mkfs.ext4", &["-q", "-m", "0", &image.to_string_lossy()])?;
        let made = FileSystem { image, mount };
        made.mount()?;
        made.find_tools()?;
        Ok(made)
    }

    /// What the modes need later.
    fn find_tools(&self) -> io::Result<()> {
        command("fsfreeze", &["--version"])?;
        command("e2fsck", &["-V"])?;
        fs::metadata(self.trigger()?).map(drop)
    }

    /// What is written here makes the kernel believe that the device failed.
    fn trigger(&self) -> io::Result<String> {
        Ok(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device()?))
    }

    fn mount(&self) -> io::Result<()> {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        command("mount", &["-o", "loop,errors=remount-ro", &image, &mount]).map(drop)
    }

    fn unmount(&self) -> io::Result<()> {
        command("umount", &[&self.mount.to_string_lossy()]).map(drop)
    }

    /// The name of its device; only ever a loop device.
    fn device(&self) -> io::Result<String> {
        let source = command("findmnt", &["-n", "-o", "SOURCE", &self.mount.to_string_lossy()])?;
        match source.strip_prefix("/dev/") {
            Some(name) if name.starts_with("loop") => Ok(name.to_owned()),
            _ => Err(io::Error::other(format!("{source} is no loop device"))),
        }
    }

    /// Takes all the room there is.
    fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.mount.join("filler"))?;
        for size in [1 << 20, 4 << 10, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        // What no longer fits is no error here.
        drop(file.sync_all());
        Ok(())
    }

    fn make_room(&self) -> io::Result<()> {
        fs::remove_file(self.mount.join("filler"))
    }

    /// As after an error of the device.
    fn turn_read_only(&self) -> io::Result<()> {
        fs::write(self.trigger()?, "1")
    }

    /// As an administrator would: with nothing running on it.
    fn repair(&self) -> io::Result<()> {
        self.unmount()?;
        // Status 1 says that it mended something.
        let checked = Command::new("e2fsck").args(["-fy"]).arg(&self.image).output()?;
        if checked.status.code().is_none_or(|code| code > 1) {
            return Err(io::Error::other(
                String::from_utf8_lossy(&checked.stdout).into_owned(),
            ));
        }
        self.mount()
    }

    fn freeze(&self, frozen: bool) -> io::Result<()> {
        let option = if frozen { "-f" } else { "-u" };
        command("fsfreeze", &[option, &self.mount.to_string_lossy()]).map(drop)
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // A frozen file system cannot be unmounted; one that is not frozen cannot be thawed.
        drop(self.freeze(false));
        if let Err(error) = self.unmount() {
            println!("{error}");
        }
    }
}

/// Runs the modes that were asked for. Whether all is well.
pub(crate) fn run(options: &Options, directory: &Path) -> io::Result<bool> {
    let mut is_clean = true;
    for mode in &options.faults {
        let place = directory.join(mode.title().replace(' ', "-"));
        fs::create_dir_all(&place)?;
        let file_system = match FileSystem::new(&place) {
            Ok(made) => made,
            Err(error) => {
                let reason = format!("no file system can be made and mounted here: {error}");
                table::result(options.results.as_deref(), "SKIP", mode.title(), &reason)?;
                continue;
            }
        };
        is_clean &= one(*mode, options, &place, &file_system)?;
    }
    Ok(is_clean)
}

fn one(mode: Mode, options: &Options, directory: &Path, file_system: &FileSystem) -> io::Result<bool> {
    let data = file_system.mount.canonicalize()?.join("data");
    let (program, executable) = (options.program, options.broker.clone());
    let mut setup = run::setup(program, executable, directory.to_owned(), data, options.seed)?;
    setup.settings.clone_from(&options.settings);
    let (run, roles) = Run::new(setup, &scope(options), options.seed);
    let mut trial = Trial::new(run, &roles);
    println!("\n== {}", mode.title());
    if let Err(error) = trial.go(mode, file_system, roles) {
        trial.fault(&format!("ended early: {error}"));
    }
    let outcome = trial.run.finish()?;
    judge(&outcome, options, directory, mode.title())
}

/// Acknowledgements and deliveries of the two kinds of traffic.
#[derive(Clone, Copy, Debug)]
struct Progress {
    stored: u64,
    volatile: u64,
}

struct Trial {
    run: Run,
    /// Clients whose publishes need the store, and those whose messages do not.
    publishers: Vec<usize>,
    volatile: Vec<usize>,
}

impl Trial {
    fn new(run: Run, roles: &[Role]) -> Trial {
        let history = run.shared.recorder.lock();
        let named = |prefix: &str, suffix: &str| {
            let is_named = |role: &&Role| {
                let name = &history.clients[usize::from(role.client)].name;
                name.starts_with(prefix) && name.ends_with(suffix)
            };
            roles
                .iter()
                .filter(is_named)
                .map(|role| usize::from(role.client))
                .collect()
        };
        let (publishers, volatile) = (named("publisher-", ""), named("live-", "-to"));
        drop(history);
        Trial {
            run,
            publishers,
            volatile,
        }
    }

    fn go(&mut self, mode: Mode, file_system: &FileSystem, roles: Vec<Role>) -> io::Result<()> {
        self.run.clients(roles)?;
        self.run.start()?;
        self.run.wait_ready()?;
        self.run.run_for(Duration::from_secs(2))?;
        self.measure("before", Duration::from_secs(3))?;
        match mode {
            Mode::Full => self.full(file_system)?,
            Mode::ReadOnly => self.read_only(file_system)?,
            Mode::Slow => self.slow(file_system)?,
        }
        self.recover()?;
        self.run.run_for(Duration::from_secs(2))?;
        self.run.drain()
    }

    fn progress(&self) -> Progress {
        let sum = |clients: &[usize]| {
            let counts = clients.iter().map(|client| &self.run.shared.progress[*client]);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        Progress {
            stored: sum(&self.publishers),
            volatile: sum(&self.volatile),
        }
    }

    /// Lets it run and prints how much went on.
    fn measure(&mut self, when: &str, time: Duration) -> io::Result<Progress> {
        let before = self.progress();
        self.run.run_for(time)?;
        let after = self.progress();
        let done = Progress {
            stored: after.stored - before.stored,
            volatile: after.volatile - before.volatile,
        };
        println!(
            "{:>5} s  {when}: {} acknowledged by the store, {} delivered that need none, in {} s",
            self.run.began.elapsed().as_secs(),
            done.stored,
            done.volatile,
            time.as_secs()
        );
        Ok(done)
    }

    fn fault(&self, text: &str) {
        self.run
            .shared
            .recorder
            .notice(BROKER, Fault::Broker, text.to_owned());
    }

    /// What has to hold while the store cannot write; `stops`: it surely cannot.
    fn bad_time(&mut self, stops: bool) -> io::Result<()> {
        // What was under way finds its end, and what is told every second is told.
        self.measure("as it begins", Duration::from_secs(2))?;
        let done = self.measure("while it lasts", BAD_TIME)?;
        if stops && done.stored > 0 {
            self.fault("acknowledged what it could not store");
        }
        // Two publishers send 50 a second each.
        if done.volatile < BAD_TIME.as_secs() * 50 {
            self.fault("traffic that needs no store did not go on");
        }
        let system = self.run.shared.system("/store/");
        let is_told = |topic: &str| topic.ends_with("/store/state") || topic.ends_with("/store/failures");
        for (topic, text) in system.iter().filter(|(topic, _)| is_told(topic)) {
            println!("         {topic} {text}");
        }
        let state = system.iter().find(|(topic, _)| topic.ends_with("/store/state"));
        if state.is_none_or(|(_, text)| text == "ok") {
            self.fault("$SYS does not tell that the store cannot write");
        }
        Ok(())
    }

    fn recover(&mut self) -> io::Result<()> {
        let before = self.progress();
        let began = Instant::now();
        while self.progress().stored < before.stored + 100 {
            if began.elapsed() > RECOVERY_WAIT {
                self.fault("publishers did not go on after the end of the fault");
                return Ok(());
            }
            self.run.run_for(Duration::from_millis(20))?;
        }
        println!("         went on after {} ms", began.elapsed().as_millis());
        self.measure("afterwards", Duration::from_secs(3)).map(drop)
    }

    fn full(&mut self, file_system: &FileSystem) -> io::Result<()> {
        self.disk(false);
        file_system.fill()?;
        // A log may have room of its own left, so what is acknowledged now is checked by the history alone.
        self.bad_time(false)?;
        println!("         killed while the disk is full");
        self.run.kill()?;
        file_system.make_room()?;
        self.restart()?;
        self.measure("after a start with room", Duration::from_secs(2))?;
        self.disk(false);
        file_system.fill()?;
        self.bad_time(false)?;
        file_system.make_room()?;
        self.disk(true);
        Ok(())
    }

    fn disk(&self, works: bool) {
        self.run.shared.recorder.record(BROKER, What::Disk { works });
    }

    fn read_only(&mut self, file_system: &FileSystem) -> io::Result<()> {
        self.disk(false);
        file_system.turn_read_only()?;
        self.bad_time(true)?;
        self.run.kill()?;
        file_system.repair()?;
        self.restart()
    }

    fn slow(&mut self, file_system: &FileSystem) -> io::Result<()> {
        for _ in 0..2 {
            self.disk(false);
            file_system.freeze(true)?;
            let stalled = self.bad_time(true);
            file_system.freeze(false)?;
            self.disk(true);
            stalled?;
            self.run.run_for(Duration::from_secs(1))?;
        }
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.run.start()?;
        self.run.wait_ready()
    }
}
