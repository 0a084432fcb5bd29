"""The adversary: a classifier of the source language on the encoder's states, and what fools it.

A model finetuned on summaries within languages learns to write the language that it reads: across
languages it copies the source. If nothing in the encoder's states tells the language, the decoder
can only follow its target tag.

    classifier   p = softmax(W_2 relu(W_1 h + b_1) + b_2)     of every source token's state h,
                                                              over n languages
    its update   -log p_true                                  only the classifier moves
    task update  -log p(target | source) + fooling(p)         the classifier stands still
      standard   -log(1 - p_true)                             any WRONG language will do
      balanced   KL(uniform || p) = -log n - 1/n sum_l log p_l      zero only where p is uniform

(Solovyev et al. 2024, section 3.3.) The standard loss is small as soon as the states look like one
other language. Even where p is uniform, its gradient pushes p_true further down: states wander from
one language to the next, and the classifier follows. The balanced loss rests at "cannot tell",
whichever side it comes from.

The updates alternate, each on batches of its own, drawn from the same streams, as in the authors'
code: the next ones train the classifier, those after them the model. Task and fooling loss are sums
over tokens, divided by the same number of target tokens.

Where this differs from the authors' code:
    the classifier's loss    divided by its own source tokens, not clipped; theirs by the target
                             tokens, clipped at norm 0.1. A constant factor would not matter to
                             Adam, which divides a gradient by its own size; these two change from
                             update to update, so the classifier's steps are not quite theirs
    its learning rate        constant; theirs falls to about half in a run
    updates                  for one of the model, `updates` of the classifier on its batches: 10
                             for the small model, which is trained briefly; for mBART 1, as theirs

    python train.py --stage summarize --langs en_XX es_XX ru_RU --adversarial balanced
    python -m tools.layers --measures probe        how much the states of a run still tell
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from model import select_where
from plumbing.files import UserError
from plumbing.runs import add_up, all_reduce, rank_and_world
from tokenizer import PAD

HIDDEN = 256  # of the classifier, as published


class Classifier(nn.Module):
    """states (N, D) -> logits over languages (N, n): one hidden layer."""

    def __init__(self, d_model, language_count, dropout=0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d_model, HIDDEN),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, language_count),
        )

    def forward(self, states):
        return self.layers(states)


def standard_loss(logits, classes):
    """-log(1 - p_true) for every row: logits (N, n), the true classes (N,) -> (N,).

    As a difference of log-sums it is finite where p_true is 1."""
    others = logits.scatter(1, classes[:, None], -torch.inf)  # (N, n)
    return logits.logsumexp(1) - others.logsumexp(1)


def balanced_loss(logits, classes=None):
    """KL(uniform || p) for every row: logits (N, n) -> (N,). The true classes play no part."""
    return -logits.log_softmax(1).mean(1) - math.log(logits.size(1))


FOOLING = {"standard": standard_loss, "balanced": balanced_loss}
KINDS = ("none", *FOOLING)


def source_classes(batch, keep, languages, count=None):
    """The source language, as its place in `languages`, of every token that keep (B, S) keeps.

    Returns (N,), in the order of states[keep]. count: N, where it is known; otherwise the CPU waits
    for a GPU to count."""
    if count is None:
        count = keep.sum().item()
    places = [languages.index(lang) for lang in batch.source_langs]
    places = torch.tensor(places).to(keep.device, non_blocking=True)  # (B,)
    return select_where(places[:, None].expand(keep.shape), keep, count)


def full_precision(device):
    """Within, autocast is off: it would round the classifier's input and weights, and its cache
    would keep half-precision copies of the weights from before a classifier update."""
    return torch.autocast(device.type, enabled=False)


def check_sources(kind, languages):
    """UserError for fewer source languages than a classifier can tell apart."""
    if len(languages) < 2:
        raise UserError(
            f"--adversarial {kind} needs at least two source languages to tell apart, not "
            f"{' '.join(languages)}; name more with --langs"
        )


class Adversary:
    """The classifier with its optimizer: update() before each task update and on batches of its
    own, loss() within it."""

    def __init__(self, kind, d_model, languages, lr, updates, device, seed=0, dropout=0.1):
        """languages: the codes of the training sources; updates: steps of the classifier on its
        batches, for each step of the task."""
        check_sources(kind, languages)
        self.kind = kind
        self.languages = list(languages)
        self.updates = updates
        torch.manual_seed(seed)
        self.classifier = Classifier(d_model, len(languages), dropout).to(device)
        self.classifier.requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.classifier.parameters(), lr)
        # Since the last accuracy(), in this process: a guess for every token and classifier update.
        self.right = 0  # a tensor after the first: the CPU need not wait for a GPU
        self.seen = 0

    def classes(self, batch, count):
        """The class of every source token but padding, `count` of them, as model.token_states() has
        them: (N,)."""
        return source_classes(batch, batch.source != PAD, self.languages, count)

    def update(self, model, batches, world=1, seed_dropout=None):
        """`updates` steps of the classifier on the states of these batches, by -log p_true.

        seed_dropout(batch, classifier_step=0): seeds dropout for a batch (classifier_step: from 1;
        0: the model's states), so that it does not matter which process has it."""
        states = []
        classes = []
        with torch.no_grad():
            for batch in batches:
                if seed_dropout:
                    seed_dropout(batch)
                states.append(model.token_states(batch.source))  # (N, D)
                classes.append(self.classes(batch, len(states[-1])))  # (N,)
        count = sum(len(batch_classes) for batch_classes in classes)
        tokens = torch.tensor(count).to(classes[0].device, non_blocking=True)
        if world > 1:
            all_reduce(tokens)
        self.classifier.requires_grad_(True)
        with full_precision(tokens.device):
            for number in range(1, self.updates + 1):
                for batch, batch_states, batch_classes in zip(batches, states, classes):
                    if seed_dropout:
                        seed_dropout(batch, classifier_step=number)
                    logits = self.classifier(batch_states.float())  # (N, n)
                    loss = F.cross_entropy(logits, batch_classes, reduction="sum") / tokens
                    loss.backward()
                    self.right += (logits.argmax(1) == batch_classes).sum()
                    self.seen += len(batch_classes)
                self.step(world)
        self.classifier.requires_grad_(False)

    def step(self, world):
        """One step of the classifier by the gradients of all processes."""
        if world > 1:
            for parameter in self.classifier.parameters():
                all_reduce(parameter.grad)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss(self, states, batch):
        """The fooling loss of a batch, summed over its source tokens.

        states: token_states (N, D) of its source; the gradient reaches these alone."""
        with full_precision(states.device):
            logits = self.classifier(states.float())  # (N, n)
        return FOOLING[self.kind](logits, self.classes(batch, len(states))).sum()

    def accuracy(self, world=1):
        """The share of tokens, of all processes, whose language the classifier got right since the
        last call."""
        device = next(self.classifier.parameters()).device
        right, seen = add_up(torch.tensor([int(self.right), self.seen], device=device), world)
        self.right = 0
        self.seen = 0
        return right / max(1, seen)

    def state_dict(self):
        return {
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "right": int(self.right),
            "seen": self.seen,
        }

    def load_state_dict(self, state):
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        # The first process wrote its own alone: of several, the next accuracy() lacks the others'
        # guesses before the stop. Read by all, they would count as often as there are processes.
        rank, _ = rank_and_world()
        if rank == 0:
            self.right = state["right"]
            self.seen = state["seen"]
