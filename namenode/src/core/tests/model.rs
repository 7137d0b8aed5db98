//! Many random calls against a tiny model; the journal replayed must give the same namespace.

use std::collections::BTreeMap;

use situ_wire::messages::namenode::{Request, Response};
use situ_wire::path::DfsPath;

use super::restart::Image;
use super::world::{BLOCK, World, committed, path};
use crate::core::ImageSlot;
use crate::core::random::SplitMix;

/// What is at a path: none for a directory, else the file's length.
type Model = BTreeMap<String, Option<u64>>;

fn parent(text: &str) -> &str {
    match text.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &text[..at],
    }
}

fn within(text: &str, other: &str) -> bool {
    text == other || text.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
}

struct Random(SplitMix);

impl Random {
    fn path(&mut self) -> String {
        let depth = 1 + self.0.below(3);
        (0..depth).map(|_| format!("/{}", ["a", "b", "c", "dd"][self.0.index(4)])).collect()
    }
}

/// Makes a directory in the model; whether that works.
fn mkdir(model: &mut Model, text: &str) -> bool {
    let ancestors: Vec<&str> = std::iter::successors(Some(text), |at| (*at != "/").then(|| parent(at))).collect();
    if ancestors.iter().any(|at| model.get(*at).is_some_and(Option::is_some)) {
        return false;
    }
    for at in ancestors {
        model.insert(at.to_owned(), None);
    }
    true
}

fn rename(model: &mut Model, from: &str, to: &str, overwrite: bool) -> bool {
    let Some(source) = model.get(from).copied() else { return false };
    let target_fits = match model.get(to) {
        None => true,
        Some(Some(_)) => overwrite && source.is_some(),
        Some(None) => false,
    };
    if within(to, from) || !target_fits || model.get(parent(to)) != Some(&None) {
        return false;
    }
    let moved: Vec<String> = model.keys().filter(|key| within(key, from)).cloned().collect();
    for key in moved {
        let kind = model.remove(&key).unwrap();
        model.insert(format!("{to}{}", &key[from.len()..]), kind);
    }
    true
}

fn delete(model: &mut Model, text: &str, recursive: bool) -> Option<bool> {
    let below: Vec<String> = model.keys().filter(|key| within(key, text)).cloned().collect();
    if below.len() > 1 && !recursive {
        return None;
    }
    for key in &below {
        model.remove(key);
    }
    Some(!below.is_empty())
}

fn write(world: &mut World, model: &mut Model, random: &mut SplitMix, text: &str, overwrite: bool) {
    let fits = !matches!((model.get(text), overwrite), (Some(None), _) | (Some(Some(_)), false));
    let fits = fits && mkdir(&mut model.clone(), parent(text));
    let operation = world.operation();
    let request = Request::Create {
        path: path(text),
        overwrite,
        parents: true,
        replication: 2,
        block_len_bytes: BLOCK,
        mode: 0o644,
        operation,
    };
    let result = world.call(request.clone());
    assert_eq!(result.is_ok(), fits, "create {text}, {overwrite}: {result:?}");
    assert_eq!(world.call(request).is_ok(), fits, "a retry");
    let Ok(Response::Created { inode, .. }) = result else { return };
    mkdir(model, parent(text));
    let mut len_bytes = 0;
    let mut last = Vec::new();
    for _ in 0..random.below(3) {
        let block = world.try_add_block(inode, std::mem::take(&mut last)).unwrap();
        last = vec![if random.below(2) == 0 { world.store(&block, BLOCK) } else { committed(&block, BLOCK) }];
        len_bytes += BLOCK;
    }
    assert_eq!(world.complete(inode, last), Ok(Response::Done));
    model.insert(text.to_owned(), Some(len_bytes));
}

fn compare(world: &mut World, model: &Model) {
    let paths: Vec<DfsPath> = model.keys().map(|text| path(text)).collect();
    let Response::Statuses(statuses) = world.call(Request::StatMany { paths }).unwrap() else { panic!() };
    for ((text, kind), status) in model.iter().zip(&statuses) {
        let status = status.as_ref().unwrap_or_else(|| panic!("{text} is missing"));
        assert_eq!((status.is_directory(), status.len_bytes()), (kind.is_none(), kind.unwrap_or(0)), "{text}");
    }
    let Response::Summary(summary) = world.call(Request::Summary { path: path("/") }).unwrap() else { panic!() };
    assert_eq!(summary.files + summary.directories, model.len() as u64, "nothing else is there");
}

#[test]
fn random_calls_agree_with_a_model_and_with_their_replay() {
    for seed in 0..8 {
        let mut random = Random(SplitMix::new(seed));
        let mut world = World::cluster(3, 2);
        let mut model = Model::from([("/".to_owned(), None)]);
        let mut images = [Image::default(), Image::default()];
        for step in 0..300 {
            let (one, two) = (random.path(), random.path());
            let flag = random.0.below(2) == 0;
            match random.0.below(10) {
                0..=2 => {
                    let expected = mkdir(&mut model, &one);
                    assert_eq!(world.mkdir(&one).is_ok(), expected, "seed {seed}, step {step}: mkdir {one}");
                }
                3..=6 => write(&mut world, &mut model, &mut random.0, &one, flag),
                7 | 8 => {
                    let operation = world.operation();
                    let request = Request::Rename { from: path(&one), to: path(&two), overwrite: flag, operation };
                    let expected = rename(&mut model, &one, &two, flag);
                    let found = world.call(request.clone());
                    assert_eq!(found.is_ok(), expected, "seed {seed}, step {step}: {one} to {two}: {found:?}");
                    assert_eq!(world.call(request).is_ok(), expected, "a retry");
                }
                _ => {
                    let operation = world.operation();
                    let request = Request::Delete { path: path(&one), recursive: flag, operation };
                    let found = world.call(request);
                    let expected = delete(&mut model, &one, flag);
                    assert_eq!(found.ok(), expected.map(Response::Deleted), "seed {seed}, step {step}: {one}");
                }
            }
            world.ns.check();
            if random.0.below(40) == 0 {
                let slot = random.0.index(2);
                images[slot].bring_forward(&mut world.ns, [ImageSlot::A, ImageSlot::B][slot]);
            }
        }
        compare(&mut world, &model);
        assert_eq!(world.replayed().digest(), world.ns.digest(), "seed {seed}");
        for image in images.iter().filter(|image| !image.records.is_empty()) {
            let mut restored = image.restored(seed % 2 == 0);
            for (tx, edit) in world.journal.iter().filter(|(tx, _)| *tx > image.tx) {
                restored.apply(*tx, edit).unwrap();
            }
            restored.check();
            assert_eq!(restored.digest(), world.ns.digest(), "seed {seed}");
        }
    }
}
