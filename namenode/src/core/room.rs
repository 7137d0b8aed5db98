//! The room under the log: a disk that is full ends the namenode, and only deletions make room for others. So what adds to
//! the namespace is refused while there is still room for what frees, and everything before the log could fail.

use situ_wire::messages::namenode::Taking;

/// How much room the log has, and what of it is kept.
///
/// ```text
/// 0           last_bytes      reserve_bytes
/// |  Nothing  |  What frees   |  Everything --->   free_bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// How many more bytes the log can take.
    pub free_bytes: u64,
    /// With less nothing is added any more.
    pub reserve_bytes: u64,
    /// With less nothing is changed any more.
    pub last_bytes: u64,
}

/// A state is left upwards only with so many parts of its threshold more, so that it does not come and go.
const SLACK_SHARE: u64 = 8;

impl Room {
    /// The reserve of so many bytes: what adds goes on above it, what frees down to a quarter of it.
    #[must_use]
    pub fn new(free_bytes: u64, reserve_bytes: u64) -> Self {
        Self { free_bytes, reserve_bytes, last_bytes: reserve_bytes / 4 }
    }

    /// Which changes are taken with that room, when those of `before` were until now.
    #[must_use]
    pub fn taking(self, before: Taking) -> Taking {
        let has = |threshold: u64, had: bool| {
            self.free_bytes >= if had { threshold } else { threshold.saturating_add(threshold / SLACK_SHARE) }
        };
        if !has(self.last_bytes, before != Taking::Nothing) {
            Taking::Nothing
        } else if !has(self.reserve_bytes, before == Taking::Everything) {
            Taking::WhatFrees
        } else {
            Taking::Everything
        }
    }

    /// What is to be said of that state in `directory`, to operators and to clients.
    pub(super) fn describe(self, taking: Taking, directory: &str) -> String {
        let free = format!("{} free under {directory}", bytes(self.free_bytes));
        let free_space = format!("free space on the disk of {directory} on the namenode's host");
        match taking {
            Taking::Everything => format!("the namenode's disk has room again, {free}: every change is taken"),
            Taking::WhatFrees => format!(
                "the namenode's disk is almost full, {free} of which {} are kept: nothing is added, deletions go on; \
                 {free_space}",
                bytes(self.reserve_bytes)
            ),
            Taking::Nothing => format!(
                "the namenode's disk is full, {free} of which {} are kept even from deletions: nothing is changed; \
                 {free_space}",
                bytes(self.last_bytes)
            ),
        }
    }
}

/// A size, for people.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..=0x3ff => format!("{bytes} B"),
        0x400..=0xf_ffff => format!("{:.1} KiB", bytes as f64 / f64::from(1 << 10)),
        0x10_0000..=0x3fff_ffff => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_room_is_noticed_at_once_and_more_of_it_with_some_slack() {
        let taking = |free_bytes, before| Room::new(free_bytes, 800).taking(before);
        for (free_bytes, before, expected) in [
            (800, Taking::Everything, Taking::Everything),
            (799, Taking::Everything, Taking::WhatFrees),
            (200, Taking::WhatFrees, Taking::WhatFrees),
            (199, Taking::Everything, Taking::Nothing),
            (224, Taking::Nothing, Taking::Nothing),
            (225, Taking::Nothing, Taking::WhatFrees),
            (899, Taking::WhatFrees, Taking::WhatFrees),
            (900, Taking::Nothing, Taking::Everything),
        ] {
            assert_eq!(taking(free_bytes, before), expected, "{free_bytes} after {before:?}");
        }
        assert_eq!(Room::new(0, 0).taking(Taking::Nothing), Taking::Everything, "without a reserve");
    }
}
