"""An experiment: the sections of `tree.py` in one value, as lineages have it, and what makes two runs the same."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from collapse_cli.config.cell import check_grid
from collapse_cli.config.families import DRAWN, Families
from collapse_cli.config.foreign import NOT_OF_RESULTS, ForeignConfig, server_of
from collapse_cli.config.names import different, merge
from collapse_cli.config.policies import Policy
from collapse_cli.config.pool import OWN_SECTIONS, PoolConfig
from collapse_cli.config.pool import check as check_pool
from collapse_cli.config.pool import overrides as overrides_of_lineages
from collapse_cli.config.selection import SelectConfig
from collapse_cli.config.tree import (
    DataConfig,
    EvalConfig,
    Expectation,
    LoopConfig,
    MixConfig,
    ModelConfig,
    RayConfig,
    SampleConfig,
    StoreConfig,
    TrackingConfig,
    TrainConfig,
)
from collapse_cli.families import DEFAULT, FAMILIES, KNOWN

REPLACED = {
    "model": ("source", "revision", "config"),
    "data": ("source", "train"),
}  # as a whole, where a lineage has its own
COMMON_TEXT = ("valid", "test")  # files beside a text, which another one does not have beside it


class Experiment(Families):
    """Everything that defines an experiment; saved, resolved, in `run.json`."""

    kind: Literal["generational", "mixture"] = "generational"
    """The loop over generations, or one generation and a grid over the mixture of real and synthetic rows."""
    learner: str = Field(default=DEFAULT, description=f"The model family: {', '.join(FAMILIES)}.")
    loop: LoopConfig = LoopConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    sample: SampleConfig = SampleConfig()
    select: SelectConfig = SelectConfig()
    foreign: ForeignConfig = ForeignConfig()
    mix: MixConfig = MixConfig()
    pool: PoolConfig = PoolConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    store: StoreConfig = StoreConfig()
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()
    expect: tuple[Expectation, ...] = ()
    """Published numbers that the report shows beside the measured ones."""
    lineages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Lines of descent that are run together: by name, what each has otherwise (`lineages.NAME.model.source = "…"`) of `model`, `data`,
    `train`, `sample` and the section of the learner. The learner itself, the loop, the mix, selection and evaluation are the same for all."""
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Runs to make in place of this one: by name, the options that each changes (`variants.NAME.train.lr = 1e-4`)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        for name, values in (("policies", self.loop.policies), ("seeds", self.loop.seeds)):
            if len(set(map(str, values))) < len(values):
                raise ValueError(f"loop.{name} names one twice: {', '.join(map(str, values))}")
        if self.model.tokenizer != "words" and self.data.source not in KNOWN and self.model.vocab_size < 260:
            raise ValueError(
                f"model.vocab_size must be at least 260 for a byte-level BPE, it is {self.model.vocab_size}"
            )
        if self.data.source == "zipf" and self.data.line_bos:
            raise ValueError("data.line_bos = true does not go with data.source = zipf, whose lines are one chain")
        if self.data.source == "world" and self.data.line_bos:
            raise ValueError(
                "data.line_bos = true does not go with data.source = world, whose documents have it already"
            )
        if self.data.source == "world" and self.eval.protocol != "block":
            raise ValueError("data.source = world is scored document by document: set eval.protocol = block")
        dialogues = self.data.format in ("chat", "pairs")  # whose prompts are those of the data
        prompted = self.sample.prompts != "none" and self.samples and not dialogues
        if prompted and self.sample.prompt_tokens > self.data.block_size:
            raise ValueError(
                f"sample.prompt_tokens = {self.sample.prompt_tokens} is more than a row holds (data.block_size = {self.data.block_size}); "
                "lower it, or, for chats or pairs, whose prompts are their own, say data.format = chat or pairs"
            )
        if (self.data.prompt or self.data.completion) and self.data.format not in ("auto", "pairs"):
            raise ValueError(
                f"data.prompt and data.completion are columns of pairs, and data.format is {self.data.format}: set data.format = pairs"
            )
        if self.eval.protocol == "sliding" and self.data.eval_rows:
            raise ValueError("eval.protocol = sliding scores the whole test text; set data.eval_rows = 0")
        if self.eval.block_size == 1 or self.eval.context == 1:
            name = "block_size" if self.eval.block_size == 1 else "context"
            raise ValueError(f"eval.{name} = 1 leaves no token to predict")
        if self.eval.context and self.eval.stride >= self.eval.context:
            raise ValueError(f"eval.stride = {self.eval.stride} must be less than eval.context = {self.eval.context}")
        if self.sample.decode.min_new_tokens > self.sample.new_tokens:
            raise ValueError("sample.decode.min_new_tokens is above sample.new_tokens")
        if (
            self.kind == "mixture" and not self.variants and self.learner in FAMILIES
        ):  # variants have grids of their own
            check_grid(self.learner, self.mixture)
        if self.kind == "mixture" and self.lineages:
            raise ValueError(
                "lineages belong to experiments of kind = generational, and a mixture has one generation and a grid"
            )
        if not self.variants:
            check_pool(self.pool, self.lineages, self.lineage_sections)
            self._check_shares()
        if self.pool.foreign and self.learner in FAMILIES and not FAMILIES[self.learner].text:
            mixed = ", ".join(name for name, family in FAMILIES.items() if family.text)
            raise ValueError(
                f"pool.foreign names text, and the rows of the learner {self.learner} are numbers; it belongs to {mixed}"
            )
        sources = self.foreign_sources
        if len(set(sources)) < len(sources):
            raise ValueError(f"{self.sources_option} names one twice: {', '.join(sources)}")
        if self.foreign.sha256 and len(self.foreign.sha256) != len(sources):
            raise ValueError(
                f"foreign.sha256 has {len(self.foreign.sha256)} hashes for {len(sources)} sources ({self.sources_option}); give one a source"
            )
        return self

    def _check_shares(self) -> None:
        """Whether each kind of rows that `pool.weights` gives a share of the loss is there, and none is given two weights."""
        pool = self.pool
        if pool.rule == "random" and self.loop.init != "base":
            raise ValueError(
                f"pool.rule = random draws the base model of each generation anew, and loop.init = {self.loop.init} starts from a model "
                "that another generation left; set loop.init = base"
            )
        if (pool.public or pool.public_rows) and not self.mix.weights.equal:
            raise ValueError(
                "mix.weights knows no public rows (pool.public, pool.public_rows); say how much each kind counts by pool.weights"
            )
        if pool.weights.parts is None:
            return
        if not self.mix.weights.equal:
            raise ValueError("pool.weights and mix.weights both say how much rows count; give one of them")
        private, public, pooled = pool.weights.parts
        if bool(public) != bool(pool.public or pool.public_rows):
            raise ValueError(
                f"pool.weights = {pool.weights} gives public rows {'a share' if public else 'no share'} of the loss, and "
                + (
                    "there are none; name a text (pool.public), or a number of drawn rows (pool.public_rows), or give them 0"
                    if public
                    else "there are some (pool.public, pool.public_rows); give them one, or leave those out"
                )
            )
        for policy in self.loop.policies:
            if private and not any(policy.real(generation) for generation in range(1, len(policy.shares) + 1)):
                raise ValueError(
                    f"pool.weights = {pool.weights} gives private real rows a share of the loss, and {policy} has none"
                )
            if pooled and not any(policy.needs_samples(generation) for generation in range(1, len(policy.shares) + 1)):
                raise ValueError(
                    f"pool.weights = {pool.weights} gives pooled rows a share of the loss, and {policy} has none"
                )

    @property
    def lineage_sections(self) -> tuple[str, ...]:
        """The sections that a lineage may have otherwise than others: its learner's own among them."""
        return (*OWN_SECTIONS, *((self.learner,) if self.learner in Families.model_fields else ()))

    @property
    def lineage_names(self) -> tuple[str, ...]:
        """The names of the lineages, in order; "" alone where there is one."""
        return tuple(overrides_of_lineages(self.pool, self.lineages))

    def lineage(self, name: str) -> "Experiment":
        """The experiment of one lineage, as if it were alone; of the name "" this one.

        Another model, or text of its own, takes the place of that of all as a whole.
        """
        if not name:
            return self
        tree, table = self.model_dump(mode="json"), overrides_of_lineages(self.pool, self.lineages)[name]
        for section in ("pool", "lineages", "variants", "expect"):
            del tree[section]
        del tree["foreign"]["sha256"]  # of sources of the pool
        for section, names in REPLACED.items():
            if any(option in table.get(section, {}) for option in names):
                for option in (
                    *names,
                    "sha256",
                    *(COMMON_TEXT if "source" in table[section] and section == "data" else ()),
                ):
                    del tree[section][option]
        own = type(self).model_validate(merge(tree, table))
        if any(option in table.get("data", {}) for option in REPLACED["data"]):
            own = own.model_copy(update={"data": own.data.measured_on(self.data)})
        return own

    def of_lineages(self) -> dict[str, "Experiment"]:
        """The experiment of each lineage by name, in order; of one alone by the name "" this one."""
        return {name: self.lineage(name) for name in self.lineage_names}

    def with_lineages(self, found: Mapping[str, "Experiment"]) -> "Experiment":
        """The experiment whose lineages are these, looked up: what each has otherwise than this stands in its table.

        Args:
            found: by name, as `of_lineages` gave them, with hashes and the like filled in.
        """
        if "" in found:
            return found[""]
        base, tables = self.model_dump(mode="json"), {}
        for name, lineage in found.items():
            tree = lineage.model_dump(mode="json")
            tables[name] = {
                section: other
                for section in self.lineage_sections
                if (other := different(base[section], tree[section]))
            }
            for section, names in REPLACED.items():
                if any(option in tables[name].get(section, {}) for option in names):
                    tables[name][section] |= {option: tree[section][option] for option in (*names, "sha256")}
            if self.pool.real == "segments":
                tables[name]["data"] = {
                    option: value for option, value in tables[name].get("data", {}).items() if option != "segment"
                }
        return self.model_copy(update={"lineages": tables})

    @property
    def foreign_sources(self) -> tuple[str, ...]:
        """Files and servers that synthetic text of someone else's comes from."""
        return self.mixture.synthetic if self.kind == "mixture" else self.pool.foreign

    @property
    def samples(self) -> bool:
        """Whether anything is sampled, or asked for: not where the synthetic rows of a mixture are read from files alone."""
        read = self.kind == "mixture" and self.foreign_sources
        return not read or any(map(server_of, self.foreign_sources))

    @property
    def sources_option(self) -> str:
        """The option that names them."""
        return "mixture.synthetic" if self.kind == "mixture" else "pool.foreign"

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Those of the loop, each with the size of its corpora."""
        return tuple(policy.of_size(self.mix.rows) for policy in self.loop.policies)

    def identity(self) -> dict[str, Any]:
        """What two experiments must share to be the same run: all but how far it goes and what is kept of it.

        Where a hash says what was found, the names it was found under do not matter. Of several lineages it is each one's, in order.
        """
        names = self.lineage_names
        if names != ("",):
            pool = self._pool_identity()
            own = {name: lineage.identity() for name, lineage in self.of_lineages().items()}
            return {
                "kind": self.kind,
                "learner": self.learner,
                "pool": pool,
                "foreign": self._foreign_identity(),
                "lineages": own,
                "order": list(names),
            }
        tree = self.model_dump(mode="json")
        gone = {"loop": ["generations", "policies", "seeds", "block"], "model": [], "data": []}
        if self.data.sha256:
            gone["data"] += ["source", "train", "valid", "test", "text", "prompt", "completion"]
        if self.model.sha256 or self.model.config:
            gone["model"] += ["source", "revision"]
        if self.model.tokenizer_sha256:
            gone["model"] += ["tokenizer"]
        tree["select"] = self.select.identity()
        tree["foreign"] = self._foreign_identity()
        gone["mixture"] = ["synthetic"]
        gone["model"] += ["length_matters"]  # follows from the others, and earlier versions did not write it down
        for section, keys in gone.items():
            for key in keys:
                del tree[section][key]
        for section in ("store", "tracking", "ray", "expect", "variants", "lineages"):
            del tree[section]
        tree["pool"] = self._pool_identity()
        for source in (*KNOWN, *DRAWN):
            if self.data.source != source:
                del tree["data"][source]
        for section in Families.model_fields:
            if section not in (self.learner, self.kind):
                del tree[section]
        return tree

    def _pool_identity(self) -> dict[str, Any]:
        """What of the pool makes a run another one: not how lineages were given, which each one's own identity says."""
        tree = self.pool.model_dump(mode="json")
        for option in ("lineages", "real", "foreign", *(("public",) if self.pool.public_sha256 else ())):
            del tree[option]
        return tree

    def _foreign_identity(self) -> dict[str, Any]:
        """What text of someone else's is: files by their hash, servers by what their answers hang on, as in keys."""
        hashes, sources = self.foreign.sha256 or ("",) * len(self.foreign_sources), list[str]()
        for sha256, name in zip(hashes, self.foreign_sources, strict=True):
            server = server_of(name)
            sources.append(server.identity if server else sha256 or name)
        read = self.foreign.model_dump(mode="json", exclude={*NOT_OF_RESULTS, "sha256"})
        return {**read, "sources": sources}

    def extended(self, other: "Experiment") -> "Experiment":
        """The experiment with the generations, policies and seeds of `other` as well."""
        loop = self.loop.model_copy(
            update={
                "generations": max(self.loop.generations, other.loop.generations),
                "policies": tuple(dict.fromkeys((*other.loop.policies, *self.loop.policies))),
                "seeds": tuple(dict.fromkeys((*other.loop.seeds, *self.loop.seeds))),
            }
        )
        return self.model_copy(update={"loop": loop})
