//! What every store promises, short of a power cut.

use super::Store;

/// Checks the promises on what `open` opens: always the same store, empty at first.
pub(crate) fn check(open: &dyn Fn() -> Box<dyn Store>) {
    let store = open();
    let set = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    let unset = |key: &str| (key.as_bytes().to_vec(), None);
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(all(&*store, ""), []);

    store.write(vec![set("b", "1"), set("a", "2"), set("c", ""), set("", "empty")]).unwrap();
    store.write(vec![]).unwrap();
    assert_eq!(store.get(b"c").unwrap().as_deref(), Some(b"".as_slice()));
    assert_eq!(store.get(b"").unwrap().as_deref(), Some(b"empty".as_slice()));
    assert_eq!(all(&*store, ""), [pair("", "empty"), pair("a", "2"), pair("b", "1"), pair("c", "")]);
    assert_eq!(all(&*store, "aa"), [pair("b", "1"), pair("c", "")]);
    assert_eq!(all(&*store, "d"), []);

    // Of several entries for one key the last counts, and removing what is not there is fine.
    store.write(vec![set("a", "3"), set("a", "4"), set("b", "5"), unset("b"), unset("c"), set("c", "6")]).unwrap();
    store.write(vec![unset("no"), unset("")]).unwrap();
    assert_eq!(all(&*store, ""), [pair("a", "4"), pair("c", "6")]);
    store.sync().unwrap();
    store.sync().unwrap();

    // Many, written while they are read, in the order of their bytes.
    let many = (0..1000_u32).map(|number| (number.to_be_bytes().to_vec(), Some(vec![1; 300]))).collect::<Vec<_>>();
    store.write(many.clone()).unwrap();
    for (index, entry) in store.scan(&[0]).take(1000).enumerate() {
        let (key, _) = entry.unwrap();
        assert_eq!(key, many[index].0);
        store.write(vec![(key, Some(vec![2; 300]))]).unwrap();
    }
    assert!((0..1000_u32).all(|number| store.get(&number.to_be_bytes()).unwrap() == Some(vec![2; 300])));

    // A long value.
    let long = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect::<Vec<_>>();
    store.write(vec![(b"long".to_vec(), Some(long.clone()))]).unwrap();
    store.sync().unwrap();
    drop(store);

    let store = open();
    assert_eq!(store.scan(&[]).count(), 1003);
    assert!(store.get(b"long").unwrap() == Some(long), "a long value differs");
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(b"4".as_slice()));
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..100_u8 {
                    store.write(vec![(vec![b'z', thread, number], Some(vec![thread]))]).unwrap();
                    assert_eq!(store.get(&[b'z', thread, number]).unwrap(), Some(vec![thread]));
                }
            });
        }
    });
    assert_eq!(store.scan(b"z").count(), 400);
}

fn all(store: &dyn Store, from: &str) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    store.scan(from.as_bytes()).map(|entry| entry.map(|(key, value)| (text(key), text(value))).unwrap()).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}
