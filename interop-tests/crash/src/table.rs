//! What is printed at the end.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    checker::Violation,
    history::{Event, Fault, History, What},
    run::Outcome,
};

/// The figures and counts as a table for a README.
pub(crate) fn print(outcome: &Outcome, seed: u64) {
    let figures = &outcome.report.figures;
    println!("\n| what | count |\n|---|---:|");
    let rows = [
        ("seed", seed),
        ("seconds", outcome.seconds),
        ("kills", figures.kills),
        ("of them before the broker was ready", figures.kills_in_start),
        ("longest start, ms", u64::from(figures.longest_start)),
        ("connections", figures.connections),
        ("published, QoS 1 and 2", figures.published),
        ("acknowledged", figures.acknowledged),
        ("refused", figures.refused),
        ("sent again by publishers", figures.resent),
        ("delivered", figures.delivered),
        ("of them with DUP", figures.delivered_dup),
        ("delayed messages", figures.delayed),
        ("Wills that were due", figures.wills_due),
        ("looks at the retained messages", figures.observations),
    ];
    for (what, count) in rows {
        println!("| {what} | {count} |");
    }
    for fault in Fault::ALL {
        println!("| **{}** | **{}** |", fault.title(), outcome.report.count(fault));
    }
    println!();
}

/// The first violations of each kind, with what happened to the message.
pub(crate) fn explain(outcome: &Outcome, out: &mut impl Write, each: usize) -> io::Result<()> {
    for fault in Fault::ALL {
        let found = outcome.report.violations.iter().filter(|it| it.fault == fault);
        for violation in found.take(each) {
            let history = &outcome.history;
            writeln!(
                out,
                "{}: {}: {}",
                fault.title(),
                history.name(violation.client),
                violation.text
            )?;
            if let Some((publisher, number)) = violation.message {
                writeln!(out, "  {} {number}", history.name(publisher))?;
            }
            trace(history, violation, out)?;
        }
    }
    Ok(())
}

/// What happened to the message between its publisher and the client, and to the broker meanwhile.
fn trace(history: &History, violation: &Violation, out: &mut impl Write) -> io::Result<()> {
    let Some((publisher, number)) = violation.message else {
        return Ok(());
    };
    let is_member = |client| {
        let info = history.clients.get(usize::from(client));
        let filter = violation.group.map(|group| &history.filters[usize::from(group)]);
        // The groups' members are named after their groups.
        filter.zip(info).is_some_and(|(filter, info)| {
            let group = filter.split('/').nth(1).unwrap_or_default();
            info.name
                .strip_prefix(group)
                .is_some_and(|rest| rest.starts_with('-'))
        })
    };
    let is_there = |client| client == violation.client || is_member(client);
    let concerns = |event: &Event| match event.what {
        What::Publishing { number: it, .. }
        | What::Resending { number: it }
        | What::Acknowledged { number: it }
        | What::Refused { number: it } => event.client == publisher && it == number,
        What::Delivered(it) | What::Repeated(it) => {
            is_there(event.client) && (it.publisher, it.number) == (publisher, number)
        }
        _ => false,
    };
    let is_frame = |event: &Event| match event.what {
        What::Killed | What::Ready | What::Disk { .. } => true,
        What::Connecting { .. } | What::Connected { .. } | What::Ended { .. } => {
            is_there(event.client) || event.client == publisher
        }
        _ => false,
    };
    let events = &history.events;
    let Some(first) = events.iter().position(concerns) else {
        return Ok(());
    };
    let last = events.iter().rposition(concerns).unwrap_or(first);
    let lines = (first..events.len()).filter(|at| concerns(&events[*at]) || is_frame(&events[*at]));
    let mut after = 0;
    for at in lines.take(60) {
        after += usize::from(at > last);
        if after > 6 {
            break;
        }
        writeln!(out, "    {}", history.line(at))?;
    }
    Ok(())
}

/// Writes history and all violations that were kept to a directory.
pub(crate) fn save(outcome: &Outcome, directory: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(directory.join("history.txt"))?);
    outcome.history.write(&mut file)?;
    file.flush()?;
    let mut file = BufWriter::new(File::create(directory.join("violations.txt"))?);
    explain(outcome, &mut file, usize::MAX)?;
    file.flush()
}

/// One line for `interop-tests/run`.
pub(crate) fn result(results: Option<&Path>, status: &str, test: &str, reason: &str) -> io::Result<()> {
    println!("{status} {test} {reason}");
    let Some(results) = results else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(results)?;
    writeln!(file, "{status}\tcrash\t{test}\t{reason}")
}
