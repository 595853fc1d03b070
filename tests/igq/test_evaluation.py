"""How far a model's predictions are from the full-precision model's (Eq. 9), and top-1."""

import math

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import InvalidArgumentError, Observation, Score, UnsupportedModelError
from igq.evaluation import divergences, log_probabilities, observation


class Constant(nn.Module):
    """Predicts what each image's pixels say."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + self.weight


def logits(*rows: list[float]) -> Tensor:
    """Images for `Constant` that make it predict these."""
    return torch.tensor(rows)[:, None, None, :]


def test_kl_is_in_nats_from_the_reference_to_the_quantized() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergences(p.log(), q.log()).item() == pytest.approx(expected)
    assert divergences(q.log(), p.log()).item() != pytest.approx(expected)


def test_kl_is_0_for_equal_predictions_and_positive_for_others() -> None:
    p = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert divergences(p, p).abs().max() < 1e-6
    assert divergences(p, p.roll(1, 1)).min() > 0


def test_a_score_has_the_kl_of_each_image_and_their_mean(
    vit: nn.Module, quantized: nn.Module, images: Tensor
) -> None:
    score = igq.evaluate(quantized, images, reference=vit)
    expected = divergences(vit(images).log_softmax(-1), quantized(images).log_softmax(-1))
    torch.testing.assert_close(score.kls, expected.detach(), atol=1e-5, rtol=1e-4)
    assert score.kl == pytest.approx(expected.mean().item(), rel=1e-4)
    assert score.top1 is None


def test_top1_is_the_share_of_labels_that_are_predicted() -> None:
    images = logits([1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [3.0, 4.0])
    score = igq.evaluate(Constant(), images, labels=torch.tensor([0, 0, 0, 1]))
    assert score.correct.tolist() == [True, False, True, True]
    assert score.top1 == 0.75
    assert score.kl is None


def test_a_model_is_at_0_from_itself(vit: nn.Module, images: Tensor) -> None:
    assert igq.evaluate(vit, images, reference=vit).kl == pytest.approx(0, abs=1e-6)


def test_a_reference_may_be_given_as_log_probabilities(
    vit: nn.Module, quantized: nn.Module, images: Tensor
) -> None:
    known = log_probabilities(vit, images)
    assert igq.evaluate(quantized, images, reference=known).kl == pytest.approx(
        igq.evaluate(quantized, images, reference=vit).kl
    )


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_size_does_not_matter(
    vit: nn.Module, quantized: nn.Module, images: Tensor, batch_size: int
) -> None:
    one = igq.evaluate(quantized, images, reference=vit)
    other = igq.evaluate(quantized, images, reference=vit, batch_size=batch_size)
    torch.testing.assert_close(one.kls, other.kls, atol=1e-4, rtol=1e-3)


def test_progress_hears_of_each_batch(vit: nn.Module, images: Tensor) -> None:
    told: list[float] = []
    igq.evaluate(vit, images, batch_size=4, progress=told.append)
    assert told == [0.5, 1]
    told.clear()
    igq.evaluate(vit, images, reference=vit, batch_size=4, progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1]


def test_log_probabilities_of_a_bf16_model_are_normalised_in_fp32() -> None:
    images = logits([1.0, 2.0, 3.0]).bfloat16()
    output = log_probabilities(Constant().bfloat16(), images)
    assert output.dtype == torch.float32
    assert output.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_images_go_to_the_model_and_predictions_come_back(device: torch.device) -> None:
    images = logits([1.0, 0.0], [0.0, 1.0])
    score = igq.evaluate(Constant().to(device), images, labels=torch.tensor([0, 1]))
    assert score.top1 == 1


def test_a_score_prints_its_means() -> None:
    score = Score(kls=torch.tensor([0.5, 1.0]), correct=None)
    assert repr(score) == "Score(kl=0.7500, top1=None)"


def test_no_images_are_refused(vit: nn.Module) -> None:
    message = r"^evaluation needs at least 1 image, but got 0\.$"
    with pytest.raises(InvalidArgumentError, match=message):
        igq.evaluate(vit, torch.zeros(0, 1, 8, 8))


@pytest.mark.usefixtures("unchecked_shapes")
def test_labels_for_other_images_are_refused(vit: nn.Module, images: Tensor) -> None:
    message = r"^`labels` must be one for each of the 6 images, but got 5\.$"
    with pytest.raises(InvalidArgumentError, match=message):
        igq.evaluate(vit, images, labels=torch.zeros(5, dtype=torch.long))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("shape", [(1, 10), (6, 11)], ids=["images", "classes"])
def test_a_reference_of_another_shape_is_refused_and_not_broadcast(
    vit: nn.Module, images: Tensor, shape: tuple[int, int]
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        igq.evaluate(vit, images, reference=torch.zeros(shape))
    assert str(raised.value) == (
        f"`reference` must have the shape of the predictions, [6, 10], but has {list(shape)}."
    )


class TestObservation:
    def test_it_has_the_kl_and_logit_mse_of_each_image(self) -> None:
        p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        seen = observation(p, q)
        assert seen.kls == pytest.approx(divergences(p, q).tolist())
        centred = (q - p) - (q - p).mean()
        assert seen.logit_mses == pytest.approx([centred.square().mean().item()])

    def test_a_constant_added_to_the_logits_changes_nothing(self) -> None:
        p = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        assert observation(p.log_softmax(-1), (p + 7).log_softmax(-1)).logit_mses == pytest.approx(
            (0, 0, 0), abs=1e-9
        )

    def test_two_are_put_one_after_the_other(self) -> None:
        both = Observation((1.0,), (2.0,)) + Observation((3.0, 5.0), (4.0, 6.0))
        assert both == Observation((1.0, 3.0, 5.0), (2.0, 4.0, 6.0))
        assert (both.kl, len(both)) == (3.0, 3)

    def test_a_kl_that_is_not_finite_is_an_error(self) -> None:
        with pytest.raises(FloatingPointError, match="not finite"):
            observation(torch.zeros(1, 2), torch.full((1, 2), torch.nan))


class Noisy(Constant):
    """Predicts noise while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand(len(x), x[0].numel()) if self.training else 0
        return super().forward(x) + noise


class TestModelsThatCallersBring:
    IMAGES = logits([1.0, 0.0], [0.0, 1.0])

    def test_a_model_in_training_mode_is_evaluated_without_noise_and_left_as_it_was(self) -> None:
        model = nn.Sequential(Noisy(), nn.Identity()).train()
        model[1].eval()
        assert igq.evaluate(model, self.IMAGES, reference=model).kl == 0
        assert [module.training for module in model.modules()] == [True, True, False]

    def test_it_is_left_as_it_was_where_it_fails(self) -> None:
        model = Noisy().train()
        with pytest.raises(InvalidArgumentError):
            igq.evaluate(model, self.IMAGES, reference=torch.zeros(2, 3))
        assert model.training

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_model_in_another_type_than_the_images_is_refused_by_a_parameter(
        self, dtype: torch.dtype
    ) -> None:
        with pytest.raises(UnsupportedModelError) as raised:
            igq.evaluate(Constant().to(dtype), self.IMAGES)
        name = str(dtype).removeprefix("torch.")
        assert str(raised.value) == (
            f"the model must be in float32 as the images are, but weight is in {name}; give "
            "model.to(images.dtype)."
        )

    def test_a_model_on_two_devices_is_refused_by_both(self) -> None:
        model = nn.Sequential(Constant(), Constant().to("meta"))
        with pytest.raises(UnsupportedModelError) as raised:
            igq.evaluate(model, self.IMAGES)
        assert str(raised.value) == (
            "the model must be on one device, but 0.weight is on cpu and 1.weight on meta; give "
            "model.to('cpu')."
        )
