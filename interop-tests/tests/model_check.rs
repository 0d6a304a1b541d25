//! The broker core, many shards of it, against a naive reference model.
//!
//! `TIDEGATE_MODEL_SEED=<seed>` runs one seed, `TIDEGATE_MODEL_STEPS=<steps>` as many steps of each seed,
//! `TIDEGATE_MODEL_RUNS=<runs>` as many seeds.

use std::{ops::RangeInclusive, time::Instant};

use interop_tests::model;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

fn seeds() -> RangeInclusive<u64> {
    match number("TIDEGATE_MODEL_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("TIDEGATE_MODEL_RUNS").unwrap_or(500),
    }
}

#[test]
fn shards_behave_like_one_naive_broker() {
    let steps = number("TIDEGATE_MODEL_STEPS").unwrap_or(400);
    let (begin, mut total, mut deliveries) = (Instant::now(), 0, 0);
    for seed in seeds() {
        match model::run(seed, steps, false) {
            Ok(report) => {
                total += report.steps;
                deliveries += report.deliveries;
            }
            Err(failure) => {
                // The same once more, with a history.
                let failure = model::run(seed, steps, true).err().unwrap_or(failure);
                for line in &failure.history {
                    println!("{line}");
                }
                panic!(
                    "TIDEGATE_MODEL_SEED={seed} TIDEGATE_MODEL_STEPS={steps}, step {}: {}",
                    failure.step, failure.what
                );
            }
        }
    }
    print_rate(begin, total, deliveries);
}

#[test]
fn nothing_is_lost_however_the_shards_interleave() {
    let steps = number("TIDEGATE_MODEL_STEPS").unwrap_or(400);
    let (begin, mut total, mut deliveries) = (Instant::now(), 0, 0);
    for seed in seeds() {
        match model::interleaved::run(seed, steps) {
            Ok(report) => {
                total += report.steps;
                deliveries += report.deliveries;
            }
            Err(failure) => panic!(
                "TIDEGATE_MODEL_SEED={seed} TIDEGATE_MODEL_STEPS={steps}, step {}: {}",
                failure.step, failure.what
            ),
        }
    }
    print_rate(begin, total, deliveries);
}

#[test]
fn what_is_acknowledged_outlives_every_crash() {
    let steps = number("TIDEGATE_MODEL_STEPS").unwrap_or(250);
    let (begin, mut total, mut deliveries) = (Instant::now(), 0, 0);
    for seed in seeds() {
        match model::durable::run(seed, steps, false) {
            Ok(report) => {
                total += report.steps;
                deliveries += report.deliveries;
            }
            Err(failure) => {
                let failure = model::durable::run(seed, steps, true).err().unwrap_or(failure);
                for line in &failure.history {
                    println!("{line}");
                }
                panic!(
                    "TIDEGATE_MODEL_SEED={seed} TIDEGATE_MODEL_STEPS={steps}, step {}: {}",
                    failure.step, failure.what
                );
            }
        }
    }
    print_rate(begin, total, deliveries);
}

#[test]
fn sleepers_lose_nothing() {
    let steps = number("TIDEGATE_MODEL_STEPS").unwrap_or(250);
    for seed in seeds() {
        if let Err(what) = model::sleepers::run(seed, steps) {
            panic!("TIDEGATE_MODEL_SEED={seed} TIDEGATE_MODEL_STEPS={steps}, {what}");
        }
    }
}

fn print_rate(begin: Instant, total: u64, deliveries: u64) {
    let rate = total as f64 / begin.elapsed().as_secs_f64();
    println!("{total} steps, {deliveries} deliveries, {rate:.0} steps per second");
}
