//! Index rows of the choice tasks: each row is a query with candidates of which one is right.
//!
//! Indices point into the micro-batch's entity table (entity rows) or its token stream (states),
//! never into a document.

/// A query against candidate vectors: mention-entity matching (equation 1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatchRows {
    /// Query index, `[rows]`: a token of the stream (MenMat) or an entity row (XMenMat).
    pub queries: Vec<i64>,
    /// Candidate indices, [rows × width], row-major.
    pub candidates: Vec<i64>,
    /// The right candidate, `[rows]`.
    pub answers: Vec<i64>,
}

impl MatchRows {
    /// Appends a row.
    pub fn push(&mut self, query: i64, candidates: impl IntoIterator<Item = i64>, answer: usize) {
        self.queries.push(query);
        self.candidates.extend(candidates);
        self.answers.push(answer as i64);
    }
}

/// A choice among pairs: relation detection (equation 3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairRows {
    /// Head entity rows, [rows × width].
    pub heads: Vec<i64>,
    /// Tail entity rows, [rows × width].
    pub tails: Vec<i64>,
    /// The positive pair, `[rows]`.
    pub answers: Vec<i64>,
}

impl PairRows {
    /// Appends the pairs of one document whose entities start at row `base`.
    pub fn extend_pairs(&mut self, pairs: &[(u32, u32)], base: i64) {
        self.heads.extend(pairs.iter().map(|pair| base + i64::from(pair.0)));
        self.tails.extend(pairs.iter().map(|pair| base + i64::from(pair.1)));
    }

    /// Appends a row whose pairs all come from one document.
    pub fn push(&mut self, pairs: &[(u32, u32)], base: i64, answer: usize) {
        self.extend_pairs(pairs, base);
        self.answers.push(answer as i64);
    }
}

/// A query pair in one document against candidate pairs in the other: relational fact alignment
/// (equation 4).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlignmentRows {
    /// Query pairs, one a row.
    pub queries: PairRows,
    /// Candidate pairs, `width` a row, with the answers.
    pub candidates: PairRows,
}

impl AlignmentRows {
    /// Appends a row.
    pub fn push(
        &mut self,
        query: (u32, u32),
        query_base: i64,
        candidates: &[(u32, u32)],
        candidate_base: i64,
        answer: usize,
    ) {
        self.queries.extend_pairs(&[query], query_base);
        self.candidates.push(candidates, candidate_base, answer);
    }
}
