//! Keys of the store: `durability` and `store.*`.

use broker_core::store::Durability;

use super::{Access, Spec, lens};
use crate::config::{
    field::Words,
    value::{Keyword, Kind},
};

const INFINITY_OR_ZERO: Option<Keyword> = Some(Keyword {
    word: "infinity",
    zero: true,
});

pub(super) static SPECS: &[Spec] = &[
    Spec {
        pattern: "durability",
        kind: Kind::Choice(Durability::WORDS),
        access: Access::Node(lens!(store.durability)),
        doc: "What an acknowledged message, subscription or session has survived by then. `sync`: a loss of power, since \
              it was synced to the disk, together with what others did in the same moment. `async`: the end of the \
              process, even by SIGKILL, but not a loss of power. `none`: nothing; everything ends with the process, \
              and no file is touched. What no persistent session and no retained message needs is never written. \
              A change needs a restart.",
    },
    Spec {
        pattern: "store.max_bytes",
        kind: Kind::Size {
            min: 16 << 20,
            max: 1 << 50,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(store.max_bytes)),
        doc: "Bytes of messages that are kept on disk for all persistent sessions together. A message is kept once, \
              however many sessions wait for it, until all have it or have expired. At the limit the oldest are \
              dropped, which is logged and counted. Sessions, retained and delayed messages are not counted \
              here. A change needs a restart.",
    },
    Spec {
        pattern: "store.max_age",
        kind: Kind::Duration {
            min: 60_000,
            max: 315_360_000_000,
            step: 1000,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(store.max_age)),
        doc: "How long messages are kept on disk for persistent sessions. Older ones are dropped, which is logged and \
              counted. Sessions end by `mqtt.session_expiry_interval` in any case, and messages by the expiry \
              that their publishers give them. A change needs a restart.",
    },
    Spec {
        pattern: "store.segment_bytes",
        kind: Kind::Size {
            min: 1 << 20,
            max: 1 << 30,
            keyword: None,
        },
        access: Access::Node(lens!(store.segment_bytes)),
        doc: "Size of one file of the log of messages. Space is given back by whole files, so limits are kept to about \
              one file. A change needs a restart, and counts for new files.",
    },
];
