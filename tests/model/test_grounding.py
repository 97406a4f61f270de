import torch

from sa2va_bento.model.grounding import DecodedMasks, ImageFeatures, best_masks


def test_the_proposal_with_the_highest_predicted_iou_wins() -> None:
    logits = torch.arange(2 * 3 * 4).view(2, 3, 2, 2).float()
    iou = torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.8, 0.7]])
    best = best_masks(DecodedMasks(logits, iou, torch.zeros(2, 3, 8), torch.tensor([[-1.0], [2.0]])))
    assert torch.equal(best.logits, torch.stack([logits[0, 2], logits[1, 1]]))
    assert torch.equal(best.iou, torch.tensor([0.9, 0.8]))
    assert torch.equal(best.object_score, torch.tensor([-1.0, 2.0]))  # a negative score hides nothing


def test_decoder_rows_read_the_features_of_their_own_image() -> None:
    maps = torch.arange(3.0).view(3, 1, 1, 1)
    rows = ImageFeatures(maps, maps + 10, maps + 20).rows(torch.tensor([2, 0, 0]))
    assert rows.stride4.flatten().tolist() == [2, 0, 0]
    assert rows.embedding.flatten().tolist() == [22, 20, 20]
