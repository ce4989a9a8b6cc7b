//! Names, notes, bundles, entries and proofs as bytes: what is read, and what is refused.
//! Never: trees.

// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::super::*;
use super::{Log, Witness};

/// The example of Go's golang.org/x/mod/sumdb/note, from which the note format comes.
const NEUMANN: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

/// The example of c2sp.org/tlog-cosignature.
const COSIGNED: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

#[test]
fn note_of_another_implementation_verifies_and_a_changed_one_does_not() {
    let key: LogKey = NEUMANN.parse().unwrap();
    assert_eq!(key.to_string(), NEUMANN);
    assert_eq!(Note::parse(NOTE.as_bytes()).unwrap().verify(&key), Ok(()));
    let changed = NOTE.replace("your problem is", "your solution is");
    let refused = Note::parse(changed.as_bytes()).unwrap().verify(&key);
    assert_eq!(refused, Err(NoteError::BadSignature));
    let other = Log::new("PeterNeumann", 9).key;
    assert_eq!(Note::parse(NOTE.as_bytes()).unwrap().verify(&other), Err(NoteError::NotSigned));
}

#[test]
fn checkpoint_of_the_specification_is_taken_apart() {
    let note = Note::parse(COSIGNED.as_bytes()).unwrap();
    let checkpoint = Checkpoint::parse(note.text).unwrap();
    assert_eq!(
        (checkpoint.origin.as_str(), checkpoint.size),
        ("example.com/behind-the-sofa", 20_852_163)
    );
    assert_eq!(checkpoint.text(), note.text);
    assert_eq!(note.signatures.len(), 2);
    assert_eq!(note.signatures[1].signature[..8], 1_679_315_147_u64.to_be_bytes());
    assert_eq!(note.signatures[1].signature.len(), 8 + 64);
    let message = cosigned_message(note.text, 1_679_315_147);
    assert!(message.starts_with("cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n"));
}

#[test]
fn malformed_notes_are_refused() {
    let line = "\u{2014} a AAAAAAE=\n";
    let many = format!("t\n\n{}", line.repeat(MAX_SIGNATURES + 1));
    let big = format!("{}\n\n{line}", "t".repeat(MAX_NOTE_BYTES));
    for text in [
        "",
        "t\n",
        "t\n\n",
        &format!("t\n{line}"),
        &format!("t\r\n\n{line}"),
        &format!("t\n\n{}", line.trim_end()),
        "t\n\n\u{2014} a\n",
        "t\n\n\u{2014} a AAAA\n",
        "t\n\n\u{2014}  AAAAAAE=\n",
        "t\n\n\u{2014} a+b AAAAAAE=\n",
        "t\n\n\u{2014} a AAAAAAE\n",
        "t\n\n- a AAAAAAE=\n",
        &many,
        &big,
    ] {
        assert!(Note::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(Note::parse(&[b't', 0xff, b'\n', b'\n']).is_err());
    assert!(Note::parse(format!("t\n\n{line}").as_bytes()).is_ok());
}

#[test]
fn malformed_checkpoints_are_refused() {
    let root = empty_root();
    assert!(Checkpoint::parse(&format!("o\n7\n{root}\n")).is_ok());
    for text in [
        format!("o\n7\n{root}"),
        format!("\n7\n{root}\n"),
        format!("o\n07\n{root}\n"),
        format!("o\n+7\n{root}\n"),
        format!("o\n9223372036854775808\n{root}\n"),
        format!("o\n7\n{root}\nextension\n"),
        "o\n7\nAAAA\n".to_owned(),
    ] {
        assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
    }
}

#[test]
fn malformed_keys_are_refused_and_a_witness_key_is_no_log_key() {
    for text in [
        "PeterNeumann",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumanm+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10",
        " +c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(text.parse::<LogKey>().is_err(), "{text}");
    }
    let witness = Witness::new("w.example/1", 3).key.to_string();
    assert!(matches!(witness.parse::<LogKey>(), Err(NoteKeyError::Kind { found: 4, .. })));
    assert!(witness.parse::<WitnessKey>().is_ok());
    assert!(LogKey::new("a b", [0; 32]).is_err() && LogKey::new("a+b", [0; 32]).is_err());
}

#[test]
fn cosignatures_count_once_each_and_a_forged_one_condemns_the_note() {
    let mut log = Log::new("td/log", 1);
    log.append(b"entry");
    let (one, two) = (Witness::new("w1", 2), Witness::new("w2", 3));
    let keys = [one.key.clone(), two.key.clone()];
    let mut note = log.note();
    let count = |note: &[u8]| cosigned_by(&Note::parse(note).unwrap(), &keys).map(|f| f.len());
    assert_eq!(count(&note), Ok(0));
    one.cosign(&mut note, 7);
    one.cosign(&mut note, 8);
    assert_eq!(count(&note), Ok(1));
    // Named twice, or under two names with one key, it is one witness all the same.
    let alias = Witness::new("w1-again", 2);
    alias.cosign(&mut note, 8);
    let twice = [one.key.clone(), one.key.clone(), alias.key];
    assert_eq!(cosigned_by(&Note::parse(&note).unwrap(), &twice).unwrap().len(), 1);
    two.cosign(&mut note, 9);
    Witness::new("stranger", 4).cosign(&mut note, 9);
    assert_eq!(count(&note), Ok(2));
    let text = Note::parse(&note).unwrap().text.to_owned();
    let forged = Witness { key: two.key, pair: super::pair(5).0 }.line(&text, 10);
    note.extend(forged.into_bytes());
    assert_eq!(count(&note), Err(NoteError::BadSignature));
}

#[test]
fn answer_of_a_witness_is_kept_only_if_it_verifies() {
    let log = Log::new("td/log", 1);
    let note = log.note();
    let text = Note::parse(&note).unwrap().text;
    let (one, two) = (Witness::new("w1", 2), Witness::new("w2", 3));
    let answer = format!("{}{}", two.line(text, 5), one.line(text, 6));
    assert_eq!(lines_of_answer(answer.as_bytes(), text, &one.key), Ok(one.line(text, 6)));
    let missing = lines_of_answer(two.line(text, 5).as_bytes(), text, &one.key);
    assert_eq!(missing, Err(NoteError::NotSigned));
    let other = lines_of_answer(one.line("other\n", 6).as_bytes(), text, &one.key);
    assert_eq!(other, Err(NoteError::BadSignature));
}

#[test]
fn resources_are_named_as_in_the_specification_and_in_one_spelling() {
    let table = [
        (Resource::Checkpoint, "checkpoint"),
        (Resource::Hashes(Tile { level: 0, index: 1_234_067, width: 256 }), "tile/0/x001/x234/067"),
        (Resource::Hashes(Tile { level: 7, index: 0, width: 1 }), "tile/7/000.p/1"),
        (Resource::Entries { index: 5, width: 255 }, "tile/entries/005.p/255"),
        (Resource::Entries { index: 1000, width: 256 }, "tile/entries/x001/000"),
    ];
    for (resource, path) in table {
        assert_eq!(resource.to_string(), path);
        assert_eq!(Resource::parse(path), Some(resource), "{path}");
    }
    for path in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/1000",
        "tile/00/000",
        "tile/8/000",
        "tile/+0/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/../checkpoint",
        "tile/entries/",
        "tile/-1/000",
        "/checkpoint",
        "checkpoint/",
        "tile/0/000.p/1/2",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Resource::parse(path), None, "{path}");
    }
}

#[test]
fn resources_exist_as_far_as_the_tree_has_grown() {
    let table = [
        ("tile/0/000.p/5", 5, true),
        ("tile/0/000.p/6", 5, false),
        ("tile/0/000", 256, true),
        ("tile/0/000", 255, false),
        ("tile/1/000.p/1", 256, true),
        ("tile/entries/001.p/1", 256, false),
        ("tile/7/x018/x446/x744/x073/x709/551", u64::MAX, false),
    ];
    for (path, size, expected) in table {
        assert_eq!(Resource::parse(path).unwrap().exists_at(size), expected, "{path} at {size}");
    }
}

#[test]
fn entry_is_made_of_the_presented_certificates_and_other_forms_are_refused() {
    let entry = entry_of(b"leaf", b"issuer");
    let read = Entry::parse(&entry).unwrap();
    assert_eq!((read.certificate, read.issuer), (&b"leaf"[..], crate::x509::sha256(b"issuer")));
    assert_eq!(Entry::parse(&[2; 40]), Err(EntryError::Version { found: 2 }));
    for wrong in [&entry[..0], &entry[..1], &entry[..33], &[1; 9000][..]] {
        assert_eq!(Entry::parse(wrong), Err(EntryError::Malformed));
    }
}

proptest! {
    #[test]
    fn bundles_round_trip_and_cut_ones_are_refused(
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..256), cut in 1_usize..40,
    ) {
        let bytes = encode_bundle(entries.iter().map(Vec::as_slice)).unwrap();
        let read = decode_bundle(&bytes).unwrap();
        prop_assert_eq!(&read, &entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let last = entries.last().map_or(0, Vec::len) + 1;
        prop_assert_eq!(decode_bundle(&bytes[..bytes.len() - cut.min(last)]), None);
    }

    #[test]
    fn proofs_round_trip_and_anything_else_is_refused_without_harm(
        index: u64, hashes in prop::collection::vec(any::<[u8; 32]>(), 0..64), note in prop::collection::vec(any::<u8>(), 0..500),
        noise in prop::collection::vec(any::<u8>(), 0..9000), cut in 0_usize..5000,
    ) {
        let path: Vec<Hash> = hashes.into_iter().map(Hash).collect();
        let one = Inclusion { index, path, checkpoint: note };
        let proof = LogProof { leaf: one.clone(), issuer: one };
        let bytes = proof.encode().unwrap();
        prop_assert_eq!(LogProof::decode(&bytes).unwrap(), proof);
        prop_assert!(LogProof::decode(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(LogProof::decode(&longer).is_err());
        let _ = LogProof::decode(&noise);
    }

    #[test]
    fn resource_names_are_read_without_harm(path in "[ -~]{0,80}", tile in "tile/(entries|[0-9]{1,2})/(x[0-9]{3}/){0,7}[0-9]{3}(.p/[0-9]{1,3})?") {
        for path in [path, tile] {
            if let Some(resource) = Resource::parse(&path) {
                prop_assert_eq!(resource.to_string(), path);
            }
        }
    }
}

#[test]
fn proofs_beyond_their_bounds_are_not_written() {
    let hash = empty_root();
    let big = |hashes, note| {
        let one = Inclusion { index: 0, path: vec![hash; hashes], checkpoint: vec![b'n'; note] };
        LogProof { leaf: one.clone(), issuer: one }.encode()
    };
    assert_eq!(big(64, 0), Err(ProofError::Malformed));
    assert_eq!(big(0, MAX_NOTE_BYTES + 1), Err(ProofError::Malformed));
    assert!(matches!(big(63, 3000), Err(ProofError::TooBig { .. })));
    assert!(big(63, 2000).is_ok());
}
