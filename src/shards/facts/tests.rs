use super::*;
use crate::corpus::Document;
use crate::shards::DocumentStore;
use crate::shards::testing::{document, store};

fn instance(row: u32, head: u32, tail: u32, relation: u32) -> FactInstance {
    FactInstance { row, head, tail, relation }
}

/// The instances of all keys, in the order of their first instance.
fn groups(index: &FactIndex) -> Vec<Vec<FactInstance>> {
    let mut groups: Vec<Vec<FactInstance>> =
        (0..index.num_keys()).map(|key| index.instances(key).to_vec()).collect();
    groups.sort();
    groups
}

fn corpus() -> Vec<Document> {
    vec![
        document("0", &[&["Paris"], &["France"]], &[(0, 1, "P17")]),
        // Another case, another order of entities.
        document("1", &[&["FRANCE"], &["paris"]], &[(1, 0, "P17"), (1, 0, "P17"), (0, 1, "P27")]),
        // Joined to 0 and 1 by its second name, and to 3 by its first.
        document("2", &[&["City of Light", "Paris"], &["France"]], &[(0, 1, "P17")]),
        document("3", &[&["City of Light"], &["France"]], &[(0, 1, "P17")]),
        // The same relation of other entities, twice in one document: no two documents.
        document("4", &[&["Berlin"], &["Germany"], &["Berlin"]], &[(0, 1, "P17"), (2, 1, "P17")]),
        // The same names in another relation, in one document only.
        document("5", &[&["Paris"], &["France"]], &[(0, 1, "P19")]),
        Document { facts: None, ..document("6", &[&["Paris"], &["France"]], &[]) },
    ]
}

fn num_instances(index: &FactIndex) -> usize {
    (0..index.num_keys()).map(|key| index.instances(key).len()).sum()
}

#[test]
fn facts_are_joined_by_any_of_their_names() {
    let (_temp, store) = store(&corpus());
    let index = store.fact_index().unwrap();
    let paris = vec![
        instance(0, 0, 1, 0),
        instance(1, 1, 0, 0),
        instance(2, 0, 1, 0),
        instance(3, 0, 1, 0),
    ];
    assert_eq!(groups(&index), [paris], "Berlin is stated by one document only");
    assert_eq!((index.num_keys(), num_instances(&index)), (1, 4));
}

#[test]
fn keys_rise_and_are_numbered_alike_whatever_else_there_is() {
    let (_temp, store) = store(&corpus());
    let alone = store.fact_index().unwrap();
    let mut documents = corpus();
    documents.push(document("7", &[&["Germany"], &["Berlin"]], &[(1, 0, "P17")]));
    let (_temp, store) = crate::shards::testing::store(&documents);
    let index = store.fact_index().unwrap();
    assert_eq!(index.num_keys(), 2);
    assert!(index.key(0) < index.key(1));
    assert!((0..2).any(|at| index.key(at) == alone.key(0)));
}

#[test]
fn keys_do_not_depend_on_the_order_of_documents() {
    let keys = |documents: &[Document]| {
        let (_temp, store) = store(documents);
        let index = store.fact_index().unwrap();
        (0..index.num_keys()).map(|at| index.key(at)).collect::<Vec<_>>()
    };
    let mut documents = corpus();
    documents.push(document("7", &[&["Germany"], &["Berlin"]], &[(1, 0, "P17")]));
    let forward = keys(&documents);
    documents.reverse();
    assert_eq!((keys(&documents), forward.len()), (forward, 2));
}

/// Forty facts, each of which shares a name of its head with the next: no two of them but
/// neighbours may be the same fact.
#[test]
fn a_chain_of_ambiguous_names_is_cut() {
    let names: Vec<String> = (0..41).map(|number| format!("Smith {number}")).collect();
    let chain = |from: usize, to: usize| -> Vec<Document> {
        (from..to)
            .map(|at| {
                document(
                    &at.to_string(),
                    &[&[&names[at], &names[at + 1]], &["Paris"]],
                    &[(0, 1, "P19")],
                )
            })
            .collect()
    };
    let largest = |documents: &[Document]| {
        let temp = tempfile::tempdir().unwrap();
        crate::shards::testing::prepared(temp.path(), "shards", documents).1.index.largest_key
    };
    assert_eq!(largest(&chain(0, 16)), 16, "eight times the two that each pair of names has");
    assert_eq!(largest(&chain(0, 17)), 2);
    assert_eq!(largest(&chain(0, 40)), 2);
    // One name that many share holds more together.
    let mut documents = chain(0, 40);
    documents.extend(
        (40..45).map(|at| document(&at.to_string(), &[&["Smith 7"], &["Paris"]], &[(0, 1, "P19")])),
    );
    assert_eq!(largest(&documents), 45);
}

#[test]
fn an_index_of_another_store_is_refused() {
    let (temp, _) = store(&corpus());
    let folder = temp.path().join("shards");
    let write = |instances: &[FactInstance]| {
        let mut table = table::Writer::create(&folder).unwrap();
        table.push(&instances.iter().map(|&instance| (1, instance)).collect::<Vec<_>>()).unwrap();
        let entry = table.finish().unwrap();
        let store = DocumentStore::open(&folder, crate::shards::StoreOptions::default()).unwrap();
        table::read(&folder, &entry, &store).map(|index| num_instances(&index))
    };
    assert_eq!(write(&[instance(0, 0, 1, 0), instance(2, 0, 1, 0)]).unwrap(), 2);
    for bad in
        [instance(7, 0, 1, 0), instance(2, 2, 1, 0), instance(2, 0, 9, 0), instance(2, 0, 1, 3)]
    {
        let error = write(&[instance(0, 0, 1, 0), bad]).unwrap_err();
        assert!(error.to_string().contains("the store does not hold"), "{error}");
    }
    assert!(
        write(&[instance(2, 0, 1, 0), instance(0, 0, 1, 0)])
            .unwrap_err()
            .to_string()
            .contains("not sorted")
    );
    let store = DocumentStore::open(&folder, crate::shards::StoreOptions::default()).unwrap();
    assert_eq!(store.fact_index().unwrap_err().exit_code(), 65, "its hash is not the manifest's");
}

#[test]
fn the_facts_of_some_rows_are_those_of_the_index() {
    let (_temp, store) = store(&corpus());
    let index = store.fact_index().unwrap();
    assert_eq!(store.facts_among(&|_| true).unwrap(), index);
    let some = store.facts_among(&|row| row == 1 || row == 3).unwrap();
    assert_eq!(groups(&some), [vec![instance(1, 1, 0, 0), instance(3, 0, 1, 0)]]);
    assert_eq!(some.key(0), index.key(0));
    // One row gives no pair.
    assert_eq!(store.facts_among(&|row| row == 1).unwrap().num_keys(), 0);
    let mut keys = Vec::new();
    store.each_fact_key(&mut |key| keys.push((key[0].0, key.len()))).unwrap();
    assert_eq!(keys, [(index.key(0), 4)]);
}

/// Keys may go on from one row group to the next.
#[test]
fn a_key_of_many_instances_comes_as_a_whole() {
    let (temp, _) = store(&corpus());
    let folder = temp.path().join("shards");
    let mut table = table::Writer::create(&folder).unwrap();
    let sizes = [3, 70_000, 2, 140_000, 5];
    for (key, &size) in (0..).zip(&sizes) {
        let rows: Vec<_> = (0..size).map(|row| (key, instance(row, 0, 1, 0))).collect();
        table.push(&rows).unwrap();
    }
    let entry = table.finish().unwrap();
    assert!(entry.row_groups > 3);
    let mut found = Vec::new();
    table::each_key(&folder, &entry, 140_000, &mut |key| {
        assert!(key.iter().all(|row| row.0 == key[0].0));
        found.push(key.len() as u32);
    })
    .unwrap();
    assert_eq!(found, sizes);
    let error = table::each_key(&folder, &entry, 139_999, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("the store does not hold"), "{error}");
}
