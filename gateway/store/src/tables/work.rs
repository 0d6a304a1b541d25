//! The threads that bring writes into the tree's files.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use broker_core::store::Sequence;

use super::{APPLY_BYTES, Shared, State, TreeError, overlay::Writes, wait};

/// Time between two attempts to flush if nobody asks for one.
const RETRY: Duration = Duration::from_secs(1);
/// With so many runs waiting for compaction, a flush waits for it.
const RUNS_MAX: usize = 20;

/// Applies and flushes until the tables are closed.
pub(super) fn apply(shared: &Shared) {
    // A flush that failed is done again before anything else, or the tree's memory would grow without a bound.
    let mut is_flush_due = false;
    while let Some(mut state) = next_work(shared, is_flush_due) {
        let batch = (!is_flush_due).then(|| (state.overlay.take(), state.committed));
        let is_flush_wanted = is_flush_due || state.flush_wanted > state.persisted;
        drop(state);
        let done = work(shared, batch, is_flush_wanted);
        is_flush_due = done.is_err();
        if is_flush_due {
            remove_leftovers(shared);
        }
        note(shared, done);
        shared.progress.notify_all();
    }
}

/// Waits until there is something to do; `None` if the tables are closed.
fn next_work(shared: &Shared, is_flush_due: bool) -> Option<MutexGuard<'_, State>> {
    let mut state = shared.state();
    loop {
        if state.is_abandoned {
            return None;
        }
        if is_flush_due {
            if state.is_closing {
                return None;
            }
            if state.trouble.is_some() {
                let waited = shared.work.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            return Some(state);
        }
        if state.flush_wanted > state.persisted
            || state.overlay.fresh_bytes() >= APPLY_BYTES.min(shared.quarter)
        {
            return Some(state);
        }
        if state.is_closing {
            return None;
        }
        state = wait(&shared.work, state);
    }
}

/// Applies a batch, and flushes if that is wanted or enough has gathered: then it returns the new position.
fn work(
    shared: &Shared,
    batch: Option<(Arc<Writes>, Sequence)>,
    is_flush_wanted: bool,
) -> Result<Option<Sequence>, TreeError> {
    if let Some((writes, position)) = batch {
        shared.tree.apply(&writes, position)?;
        shared.state().overlay.applied();
    }
    if !is_flush_wanted && shared.tree.unflushed_bytes() < shared.quarter as u64 {
        return Ok(None);
    }
    wait_for_compaction(shared);
    if shared.state().is_abandoned {
        return Ok(None);
    }
    let position = shared.tree.flush()?;
    shared.compaction().is_wanted = true;
    shared.compaction_changed.notify_all();
    Ok(Some(position))
}

fn note(shared: &Shared, done: Result<Option<Sequence>, TreeError>) {
    let mut state = shared.state();
    let had_trouble = state.has_failed;
    match done {
        Ok(position) => {
            state.persisted = position.unwrap_or(state.persisted);
            shared.count_lag(&state);
            state.trouble = None;
            state.has_failed = false;
            if had_trouble {
                tracing::info!(tables = %shared.path.display(), "the tables can be written again");
            }
        }
        Err(error) => {
            if !had_trouble {
                tracing::error!(
                    tables = %shared.path.display(),
                    %error,
                    "the tables cannot be written; the log keeps what they miss, and it is tried again"
                );
            }
            state.trouble = Some(error);
            state.has_failed = true;
        }
    }
}

fn remove_leftovers(shared: &Shared) {
    // What stays is removed after the next failure, or when the tables are opened.
    if let Err(error) = shared.tree.remove_leftovers() {
        tracing::debug!(tables = %shared.path.display(), %error, "files that were not finished stay for now");
    }
}

/// Too many runs make reads slow; a compaction that fails is not waited for.
fn wait_for_compaction(shared: &Shared) {
    if shared.tree.size().runs < RUNS_MAX {
        return;
    }
    let mut compaction = shared.compaction();
    while compaction.is_wanted && !compaction.is_failing && !compaction.is_closing {
        compaction = wait(&shared.compaction_changed, compaction);
    }
}

/// Compacts after each flush until there is nothing to do.
pub(super) fn compact(shared: &Shared) {
    let mut compaction = shared.compaction();
    loop {
        if compaction.is_closing {
            return;
        }
        if !compaction.is_wanted {
            compaction = wait(&shared.compaction_changed, compaction);
            continue;
        }
        drop(compaction);
        let done = shared.tree.compact();
        if done.is_err() {
            remove_leftovers(shared);
        }
        compaction = shared.compaction();
        compaction.is_wanted = matches!(done, Ok(true));
        let was_failing = std::mem::replace(&mut compaction.is_failing, done.is_err());
        if let Err(error) = done
            && !was_failing
        {
            tracing::error!(
                tables = %shared.path.display(),
                %error,
                "the tables cannot be compacted: they take more room, and reads take longer; `tidegate store check` tells more"
            );
        }
        shared.compaction_changed.notify_all();
    }
}
