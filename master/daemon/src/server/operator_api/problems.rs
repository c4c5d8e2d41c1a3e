//! What stands in the way of a launch, as operators and masters are told.

use aot_model::problem::Problem;
use aot_proto::v1;

/// As messages; the first `about_file` of them are about the file and what it names.
pub(super) fn problems_of(problems: Vec<Problem>, about_file: usize) -> Vec<v1::Problem> {
    let message = |(at, problem): (usize, Problem)| v1::Problem {
        file: at < about_file,
        message: problem.message,
        hint: problem.hint,
    };
    problems.into_iter().enumerate().map(message).collect()
}

/// As another master has told it.
pub(super) fn problem(problem: &v1::Problem) -> Problem {
    Problem {
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}
