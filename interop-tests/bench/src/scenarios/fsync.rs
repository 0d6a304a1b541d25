//! What the disk can do: appends of one size, each with its fdatasync.

use std::{
    error::Error,
    fs::{self, OpenOptions},
    io::Write,
    time::{Duration, Instant},
};

use crate::Run;

pub(crate) fn run(run: &mut Run) -> Result<(), Box<dyn Error>> {
    let path: String = run.options.optional("file")?.ok_or("fsync needs --file")?;
    let bytes = vec![0x5a; run.options.get("size", 4096usize)?];
    let limit = Duration::from_secs_f64(run.options.get("seconds", 2.0)?);
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
    let mut micros = Vec::new();
    let began = Instant::now();
    let mut before = began;
    while before.duration_since(began) < limit {
        file.write_all(&bytes)?;
        file.sync_data()?;
        let after = Instant::now();
        micros.push(after.duration_since(before).as_micros() as u32);
        before = after;
    }
    run.report.number(
        "fdatasyncs_per_s",
        micros.len() as f64 / began.elapsed().as_secs_f64(),
    );
    run.report.durations("fdatasync", &mut micros);
    fs::remove_file(&path)?;
    Ok(())
}
