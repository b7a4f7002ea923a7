"""The stages that lead from sources of someone else's text to the rows of it that a lineage's corpus takes."""

from dataclasses import dataclass

from collapse_cli.config import Experiment
from collapse_cli.config.foreign import server_of
from collapse_cli.config.policies import Policy
from collapse_cli.engine.stage import Stage
from collapse_cli.experiment.pool import Pool
from collapse_cli.experiment.stages.answered import answered_stage
from collapse_cli.experiment.stages.asked import asked_for_corpus
from collapse_cli.experiment.stages.portion import portion_stage
from collapse_cli.experiment.stages.sample import Sharing
from collapse_cli.experiment.stages.written import written_stage
from collapse_cli.learners import Hints


@dataclass(frozen=True)
class Sources:
    """The sources of `pool.foreign` in order: names, hashes (empty for servers), and where files are."""

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    hints: Hints

    @classmethod
    def of(cls, config: Experiment, hints: Hints) -> "Sources":
        return cls(config.pool.foreign, config.foreign.sha256, hints)

    def rows(
        self,
        own: Experiment,
        hints: Hints,
        data: Stage,
        policy: Policy,
        pool: Pool,
        members: int,
        seed: int,
        generation: int,
    ) -> list[list[Stage]]:
        """Of each source the stages that lead to the rows which a lineage takes for a generation's corpus: its rows are the last one.

        Args:
            own, hints, data: of the lineage.
            members: how many give rows to that corpus, these sources, which are the last, among them.
        """
        found = []
        for number, (source, sha256) in enumerate(zip(self.names, self.hashes, strict=True)):
            place = (members - len(self.names) + number, members)
            if server := server_of(source):
                sharing = Sharing(pool.lineages + number, pool.lineages + pool.foreign, (place,))
                asked = asked_for_corpus(own, hints, server, data, policy, sharing, seed, generation)
                found.append([asked, answered_stage(own, data, [asked], generation)])
            else:
                every = written_stage(own, self.hints, data, sha256)
                found.append([every, portion_stage(own, policy, data, every, place, seed, generation)])
        return found
