//! Starting again: images and replay.

use situ_wire::error::ErrorCode;
use situ_wire::ids::TxId;
use situ_wire::messages::namenode::{Request, Response, SafeModeAction};

use super::world::{World, caller, code, config, path};
use crate::core::random::SplitMix;
use crate::core::{ImageChanges, ImageKey, ImageRecord, ImageSlot, Namesystem};

use std::collections::BTreeMap;

/// An image as a store would hold it.
#[derive(Default, Clone)]
pub(super) struct Image {
    pub(super) records: BTreeMap<ImageKey, ImageRecord>,
    pub(super) tx: TxId,
}

impl Image {
    pub(super) fn bring_forward(&mut self, ns: &mut Namesystem, slot: ImageSlot) {
        let changes = ns.take_changes(slot);
        assert!(changes.is_sorted_by(|one, two| one.0 < two.0), "ascending, each once");
        for (key, record) in changes {
            match record {
                Some(record) => {
                    assert_eq!(record.key(), key);
                    self.records.insert(key, record);
                }
                None => {
                    self.records.remove(&key);
                }
            }
        }
        self.tx = ns.last_tx();
    }

    /// Takes in a part of a snapshot, in whatever order it comes.
    pub(super) fn take_in(&mut self, changes: ImageChanges) {
        for (key, record) in changes {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
    }

    pub(super) fn restored(&self, backwards: bool) -> Namesystem {
        let mut ns = Namesystem::new(config());
        let mut records: Vec<&ImageRecord> = self.records.values().collect();
        if backwards {
            records.reverse();
        }
        for record in records {
            ns.restore(record).unwrap();
        }
        ns.finish_restore(self.tx).unwrap();
        ns
    }
}

fn busy_world() -> World {
    let mut world = World::cluster(3, 1);
    world.write_file("/d/one", 2, 10);
    world.write_file("/d/e/two", 3, 10);
    let open = world.create("/d/open", 3);
    world.add_block(open);
    world
}

#[test]
fn an_image_restores_the_same_namespace_in_any_order() {
    let mut world = busy_world();
    let (mut a, mut b) = (Image::default(), Image::default());
    a.bring_forward(&mut world.ns, ImageSlot::A);
    let operation = world.operation();
    world.call(Request::Delete { path: path("/d/one"), recursive: false, operation }).unwrap();
    b.bring_forward(&mut world.ns, ImageSlot::B);
    let (digest, tx) = (world.ns.digest(), world.ns.last_tx());
    world.write_file("/late", 1, 5);
    a.bring_forward(&mut world.ns, ImageSlot::A);
    for backwards in [false, true] {
        let mut restored = b.restored(backwards);
        restored.check();
        assert_eq!((restored.digest(), restored.last_tx()), (digest, tx));
        for (at, edit) in world.journal.iter().filter(|(at, _)| *at > tx) {
            restored.apply(*at, edit).unwrap();
        }
        assert_eq!(restored.digest(), world.ns.digest());
        // What changed since the restore brings that image forward.
        let mut forward = b.clone();
        forward.bring_forward(&mut restored, ImageSlot::B);
        assert_eq!(forward.records, a.records);
        // The other image is made anew.
        let mut anew = Image::default();
        restored.reset_image(ImageSlot::A);
        anew.bring_forward(&mut restored, ImageSlot::A);
        assert_eq!(anew.records, a.records);
    }
}

#[test]
fn damage_to_an_image_shows() {
    let mut world = busy_world();
    let mut image = Image::default();
    image.bring_forward(&mut world.ns, ImageSlot::A);
    for key in image.records.keys() {
        let mut ns = Namesystem::new(config());
        let mut rest = image.records.iter().filter(|(other, _)| *other != key);
        let restored = rest.try_for_each(|(_, record)| ns.restore(record));
        let whole = restored.and_then(|()| ns.finish_restore(image.tx)).is_ok();
        assert!(!whole || ns.digest() != world.ns.digest(), "without {key:?}");
    }
    let mut ns = Namesystem::new(config());
    let twice = image.records.values().chain(image.records.values());
    assert!(twice.map(|record| ns.restore(record)).any(|result| result.is_err()));
}

#[test]
fn an_edit_that_does_not_follow_or_does_not_fit_is_refused() {
    let world = busy_world();
    let mut ns = Namesystem::new(config());
    assert!(ns.apply(TxId(2), &world.journal[1].1).is_err());
    assert!(ns.apply(TxId(1), &world.journal[2].1).is_err(), "it needs the one before");
    let mut ns = Namesystem::new(config());
    ns.apply(TxId(1), &world.journal[0].1).unwrap();
    assert!(ns.apply(TxId(2), &world.journal[0].1).is_err(), "not twice");
}

#[test]
fn an_empty_namespace_is_in_service_at_once_and_another_waits() {
    let mut world = World::new();
    assert_eq!(world.ns.safe_mode(), None);
    world.mkdir("/d").unwrap();
    world.restart();
    assert_eq!(world.ns.safe_mode(), None);
    let mut world = World::cluster(1, 1);
    world.write_file("/f", 1, 10);
    world.restart();
    assert!(world.ns.safe_mode().is_some());
    // A writer whose namenode was away does not lose its lease for that.
    world.live(1000);
    assert_eq!(world.readable("/f").len(), 1);
}

#[test]
fn safe_mode_waits_for_blocks_as_long_as_it_takes_or_for_an_operators_word() {
    let mut world = World::cluster(2, 1);
    let (_, lost) = world.write_file("/lost", 1, 10);
    world.write_file("/f", 2, 10);
    world.restart();
    for id in world.holders(lost) {
        world.disks.get_mut(&id).unwrap().replicas.remove(&lost.id);
    }
    world.live(3_600_000);
    assert!(world.ns.safe_mode().is_some_and(|reason| reason.contains("1 of 2 blocks")));
    let leave = Request::SafeMode { action: SafeModeAction::Leave };
    assert_eq!(code(world.call_by(caller("ann"), leave.clone())), ErrorCode::PermissionDenied);
    assert!(world.ns.safe_mode().is_some());
    assert_eq!(world.call(leave), Ok(Response::SafeMode(None)));
    world.mkdir("/d").unwrap();
    world.ns.check();
}

#[test]
fn an_operator_enters_safe_mode_and_it_ends_at_his_word_alone() {
    let mut world = World::cluster(2, 1);
    world.write_file("/f", 2, 10);
    let order = |world: &mut World, action| match world.call(Request::SafeMode { action }) {
        Ok(Response::SafeMode(reason)) => reason.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(!order(&mut world, SafeModeAction::Get));
    assert!(order(&mut world, SafeModeAction::Enter));
    world.live(600_000);
    assert!(order(&mut world, SafeModeAction::Get));
    assert_eq!(code(world.mkdir("/d")), ErrorCode::SafeMode);
    assert_eq!(world.readable("/f").len(), 2);
    assert!(!order(&mut world, SafeModeAction::Leave));
    world.mkdir("/d").unwrap();
}

/// Does something that changes, makes or removes what an image may be about to read.
fn stir(world: &mut World, random: &mut SplitMix, step: u64) {
    let (one, two) = (random.below(12), random.below(12));
    let operation = world.operation();
    match random.below(5) {
        0 => drop(world.write_file(&format!("/d/new{step}"), 1, 5)),
        1 => {
            let request = world.create_request(1, &format!("/d/f{one}"), 1);
            // It may be there already.
            let _ = world.call(request);
        }
        2 => {
            let request = Request::Delete { path: path(&format!("/d/f{one}")), recursive: true, operation };
            world.call(request).unwrap();
        }
        3 => {
            let (from, to) = (path(&format!("/d/f{one}")), path(&format!("/d/f{two}")));
            // Either may be missing, or both be the same.
            let _ = world.call(Request::Rename { from, to, overwrite: true, operation });
        }
        _ => drop(world.mkdir(&format!("/d/dir{step}"))),
    }
}

#[test]
fn a_snapshot_read_in_slices_is_the_state_at_its_beginning() {
    for seed in 0..40 {
        let mut random = SplitMix::new(seed);
        let mut world = World::cluster(2, 1);
        let mut images = [Image::default(), Image::default()];
        let slots = [ImageSlot::A, ImageSlot::B];
        if seed % 2 == 0 {
            // The first time everything is read, afterwards what changed.
            slots.into_iter().for_each(|slot| world.ns.reset_image(slot));
        }
        for step in 0..8 {
            world.write_file(&format!("/d/f{step}"), 1, 10);
        }
        for round in 0..6 {
            for step in 0..random.below(20) {
                stir(&mut world, &mut random, 1000 * round + step);
            }
            let at = random.index(2);
            let (tx, digest) = world.ns.begin_changes(slots[at]);
            assert_eq!((tx, digest), (world.ns.last_tx(), world.ns.digest()));
            let mut slices = 0;
            loop {
                let limit = 1 + random.index(12);
                let (changes, more) = world.ns.next_changes(limit);
                assert!(changes.len() <= limit + 1, "{} of {limit}", changes.len());
                images[at].take_in(changes);
                slices += 1;
                if !more {
                    break;
                }
                stir(&mut world, &mut random, 1000 * round + 100 + slices);
            }
            world.ns.check();
            images[at].tx = tx;
            let restored = images[at].restored(false);
            restored.check();
            assert_eq!(restored.digest(), digest, "seed {seed}, round {round}");
            if random.below(4) == 0 {
                // A snapshot that nobody reads to its end: that image is made anew.
                let other = 1 - at;
                world.ns.begin_changes(slots[other]);
                world.ns.next_changes(3);
                world.ns.reset_image(slots[other]);
                images[other] = Image::default();
            }
        }
    }
}
