//! Starting again: images and replay.

use situ_wire::ids::TxId;
use situ_wire::messages::namenode::Request;

use super::world::{World, config, path};
use crate::core::{ImageKey, ImageRecord, ImageSlot, Namesystem};

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
    assert!(ns.apply(TxId(1), &world.journal[1].1).is_err(), "it needs the one before");
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
fn safe_mode_ends_when_all_have_reported_and_a_block_is_lost() {
    let mut world = World::cluster(2, 1);
    let (_, lost) = world.write_file("/lost", 1, 10);
    world.write_file("/f", 2, 10);
    world.restart();
    for id in world.holders(lost) {
        world.disks.get_mut(&id).unwrap().replicas.remove(&lost.id);
    }
    world.live(20_000);
    assert!(world.ns.safe_mode().is_some());
    world.live(20_000);
    assert_eq!(world.ns.safe_mode(), None);
    world.ns.check();
}
