//! Identifiers of a mention or a relation, as PubTator's files list them.
//!
//! `|`, `;` and `,` separate identifiers where each part is one. A variant is one identifier,
//! although it holds such characters: `p|SUB|R|12|K` (tmVar, BioRED), or a list of attributes,
//! `tmVar:p|SUB|V|600|E;HGVS:p.V600E;RS#:113488022` (PubTator 3).

/// Identifiers that say that there is none.
const UNGROUNDED: [&str; 3] = ["", "-", "-1"];
/// What the attributes of a variant begin with.
const VARIANT_ATTRIBUTES: [&str; 8] = [
    "tmVar:",
    "HGVS:",
    "RS#:",
    "VariantGroup:",
    "OriginalGene:",
    "CorrespondingGene:",
    "CorrespondingSpecies:",
    "CA#:",
];

/// The identifiers in a text, without those that say that there is none.
pub(super) fn identifiers(text: &str) -> Vec<&str> {
    let text = text.trim();
    let has_attributes = || {
        let parts = || text.split(';').map(str::trim);
        let is_attribute = |part: &str| VARIANT_ATTRIBUTES.iter().any(|key| part.starts_with(key));
        parts().any(is_attribute) && (parts().count() > 1 || text.contains('|'))
    };
    if !text.contains(['|', ';', ',']) || has_attributes() {
        return if UNGROUNDED.contains(&text) { Vec::new() } else { vec![text] };
    }
    let parts: Vec<&str> = text
        .split([';', ','])
        .map(str::trim)
        .flat_map(|part| if is_variant(part) { vec![part] } else { part.split('|').collect() })
        .map(str::trim)
        .collect();
    if !parts.iter().all(|part| is_variant(part) || UNGROUNDED.contains(part) || is_single(part)) {
        return vec![text];
    }
    parts.into_iter().filter(|part| !UNGROUNDED.contains(part)).collect()
}

/// Whether a text is a variant: the kind of sequence (or nothing), the kind of change, and more.
fn is_variant(text: &str) -> bool {
    let mut parts = text.split('|');
    let sequence = parts
        .next()
        .is_some_and(|part| part.is_empty() || part.len() == 1 && "cgmnpr".contains(part));
    let change = parts
        .next()
        .is_some_and(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphabetic()));
    sequence && change && parts.next().is_some()
}

/// Whether a text is an identifier such as `D003920`, `MESH:D003920`, `77001`, `OMIM:125853`,
/// `CVCL_0030` or `672(Tax:9606)`.
fn is_single(text: &str) -> bool {
    let is_named = text
        .split_once(':')
        .is_some_and(|(base, id)| base.chars().all(|c| c.is_ascii_alphabetic()) && !id.is_empty());
    !text.contains(char::is_whitespace) && (is_named || text.contains(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_one_identifier() {
        for text in [
            "p|SUB|R|12|K",
            "c|DEL|1234_1235|AG",
            "g|SUB|A|100|T",
            "m|SUB|A|3243|G",
            "r|INS|76|A",
            "p|FS|K|23||7",
            "|Allele|G|308",
            "c|SUB|G|IVS2+1|A",
            "tmVar:p|SUB|V|600|E;HGVS:p.V600E;VariantGroup:0;CorrespondingGene:673;RS#:113488022",
            "tmVar:rs113488022;VariantGroup:0;CorrespondingGene:673;RS#:113488022",
            "p|SUB|V|600|E;RS#:113488022",
            "tmVar:c|SUB|G|35|A",
            "rs113488022",
        ] {
            assert_eq!(identifiers(text), [text]);
        }
    }

    #[test]
    fn identifiers_are_separated_where_each_part_is_one() {
        assert_eq!(identifiers("7;8"), ["7", "8"]);
        assert_eq!(identifiers("77001,77002"), ["77001", "77002"]);
        assert_eq!(identifiers("MESH:D1|MESH:D2"), ["MESH:D1", "MESH:D2"]);
        assert_eq!(identifiers(" D003920 | OMIM:125853 ;"), ["D003920", "OMIM:125853"]);
        assert_eq!(identifiers("672(Tax:9606);CVCL_0030"), ["672(Tax:9606)", "CVCL_0030"]);
        assert_eq!(identifiers("p|SUB|R|12|K,p|SUB|R|12|S"), ["p|SUB|R|12|K", "p|SUB|R|12|S"]);
        assert_eq!(identifiers("-1|D1"), ["D1"]);
        for none in ["", "-", "-1", " ", "-|-1"] {
            assert!(identifiers(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn what_has_parts_that_are_no_identifiers_stays_whole() {
        for text in ["alpha|beta", "1,2-dichlor ethane", "SUB|R|12|K"] {
            assert_eq!(identifiers(text), [text]);
        }
    }
}
