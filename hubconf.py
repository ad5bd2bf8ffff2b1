"""Entry points for torch.hub: one function a model.

    model = torch.hub.load("OWNER/pretrainps:v0.1.0", "resnet50_hybrid", trust_repo=True)

Nothing heavy is imported up here, so that a missing dependency is named by torch.hub instead of ending in a traceback.
Every public function below is an entry point.
"""

dependencies = ["torch", "torchvision", "timm", "huggingface_hub", "safetensors", "requests", "filelock", "tqdm"]


def _load(name, device, offline, progress, head=None, embedding_dim=None, num_classes=None):
    from pretrainps import load as _load_model

    return _load_model(
        name,
        head=head,
        embedding_dim=embedding_dim,
        num_classes=num_classes,
        device=device,
        offline=offline,
        progress=progress,
    )


def swin_tiny_solider(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """SOLIDER Swin-T.

    Semantic-controllable self-supervised pre-training on LUPerson; Swin-Tiny with semantic embeddings.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("swin-tiny-solider"). Licence: apache-2.0.
    """
    return _load("swin-tiny-solider", device, offline, progress, head, embedding_dim, num_classes)


def swin_small_solider(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """SOLIDER Swin-S.

    Semantic-controllable self-supervised pre-training on LUPerson; Swin-Small with semantic embeddings.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("swin-small-solider"). Licence: apache-2.0.
    """
    return _load("swin-small-solider", device, offline, progress, head, embedding_dim, num_classes)


def swin_base_solider(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """SOLIDER Swin-B.

    Semantic-controllable self-supervised pre-training on LUPerson; Swin-Base with semantic embeddings.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("swin-base-solider"). Licence: apache-2.0.
    """
    return _load("swin-base-solider", device, offline, progress, head, embedding_dim, num_classes)


def resnet50_luperson(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """LUPerson ResNet-50.

    Momentum-contrast pre-training on 4 M unlabelled person crops.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("resnet50-luperson"). Licence: apache-2.0.
    """
    return _load("resnet50-luperson", device, offline, progress, head, embedding_dim, num_classes)


def resnet50_hybrid(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """ResNet-50, hybrid pre-training for person search.

    Pre-trained on detection and re-ID data together; the paper's main backbone.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("resnet50-hybrid"). Licence: apache-2.0.
    """
    return _load("resnet50-hybrid", device, offline, progress, head, embedding_dim, num_classes)


def resnet18_hybrid(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """ResNet-18, hybrid pre-training for person search.

    Pre-trained on detection and re-ID data together; the small ResNet of the same paper.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("resnet18-hybrid"). Licence: apache-2.0.
    """
    return _load("resnet18-hybrid", device, offline, progress, head, embedding_dim, num_classes)


def shufflenetv1_hybrid(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """ShuffleNetV1 (groups 3, 1.0x), hybrid pre-training for person search.

    Pre-trained on detection and re-ID data together; 0.9 M parameters, for small devices.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("shufflenetv1-hybrid"). Licence: apache-2.0.
    """
    return _load("shufflenetv1-hybrid", device, offline, progress, head, embedding_dim, num_classes)


def resnet50_imagenet(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """ResNet-50, ImageNet-1k classification.

    torchvision's first ResNet-50 weights, the start of NAE, SeqNet and their successors.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("resnet50-imagenet"). Licence: bsd-3-clause.
    """
    return _load("resnet50-imagenet", device, offline, progress, head, embedding_dim, num_classes)


def resnet18_imagenet(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """ResNet-18, ImageNet-1k classification.

    torchvision's ResNet-18 weights.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("resnet18-imagenet"). Licence: bsd-3-clause.
    """
    return _load("resnet18-imagenet", device, offline, progress, head, embedding_dim, num_classes)


def shufflenetv1_imagenet(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """ShuffleNetV1 (groups 3, 1.0x), ImageNet-1k classification.

    MMClassification's ShuffleNetV1 weights: the baseline of shufflenetv1-hybrid.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("shufflenetv1-imagenet"). Licence: apache-2.0.
    """
    return _load("shufflenetv1-imagenet", device, offline, progress, head, embedding_dim, num_classes)


def nae_resnet50_cuhk(*, device="cpu", offline=None, progress=True):
    """NAE, ResNet-50, trained on CUHK-SYSU.

    Faster R-CNN with a norm-aware embedding: its length says person or not, its direction says who.

    Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one dictionary for
    each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, 256)}, boxes as x1, y1, x2, y2 in its pixels.
    It resizes and normalizes by itself. Licence: mit, which is that of the code; see pretrainps.info("nae-resnet50-cuhk").
    """
    return _load("nae-resnet50-cuhk", device, offline, progress)


def nae_resnet50_prw(*, device="cpu", offline=None, progress=True):
    """NAE, ResNet-50, trained on PRW.

    Faster R-CNN with a norm-aware embedding: its length says person or not, its direction says who.

    Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one dictionary for
    each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, 256)}, boxes as x1, y1, x2, y2 in its pixels.
    It resizes and normalizes by itself. Licence: mit, which is that of the code; see pretrainps.info("nae-resnet50-prw").
    """
    return _load("nae-resnet50-prw", device, offline, progress)


def seqnet_resnet50_cuhk(*, device="cpu", offline=None, progress=True):
    """SeqNet, ResNet-50, trained on CUHK-SYSU.

    Two heads in sequence: Faster R-CNN finds the people, the second refines their boxes and embeds them.

    Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one dictionary for
    each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, 256)}, boxes as x1, y1, x2, y2 in its pixels.
    It resizes and normalizes by itself. Licence: mit, which is that of the code; see pretrainps.info("seqnet-resnet50-cuhk").
    """
    return _load("seqnet-resnet50-cuhk", device, offline, progress)


def seqnet_resnet50_prw(*, device="cpu", offline=None, progress=True):
    """SeqNet, ResNet-50, trained on PRW.

    Two heads in sequence: Faster R-CNN finds the people, the second refines their boxes and embeds them.

    Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one dictionary for
    each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, 256)}, boxes as x1, y1, x2, y2 in its pixels.
    It resizes and normalizes by itself. Licence: mit, which is that of the code; see pretrainps.info("seqnet-resnet50-prw").
    """
    return _load("seqnet-resnet50-prw", device, offline, progress)


def tiny_hybrid_synthetic(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
    """Tiny ResNet, hybrid pre-training on the synthetic world.

    Small enough to be learned on a CPU: what hybrid pre-training gives, to try and to test everything with. It comes with the
    package, so nothing is downloaded.

    Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding" it is a
    unit vector a crop instead, with head="classifier", num_classes=N class scores. Input: RGB, see
    pretrainps.preprocess("tiny-hybrid-synthetic"). Licence: apache-2.0.
    """
    return _load("tiny-hybrid-synthetic", device, offline, progress, head, embedding_dim, num_classes)


def seqnet_tiny_synthetic(*, device="cpu", offline=None, progress=True):
    """SeqNet on a tiny ResNet, trained on the synthetic world.

    Finds and tells apart drawn people: the detector of `pretrainps demo`. It does not work on photographs. It comes with the
    package, so nothing is downloaded.

    Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one dictionary for
    each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, 256)}, boxes as x1, y1, x2, y2 in its pixels.
    It resizes and normalizes by itself. Licence: apache-2.0; see pretrainps.info("seqnet-tiny-synthetic").
    """
    return _load("seqnet-tiny-synthetic", device, offline, progress)


def nae_tiny_synthetic(*, device="cpu", offline=None, progress=True):
    """NAE on a tiny ResNet, trained on the synthetic world.

    Finds and tells apart drawn people, with one stage less than SeqNet. It does not work on photographs. It comes with the
    package, so nothing is downloaded.

    Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one dictionary for
    each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, 256)}, boxes as x1, y1, x2, y2 in its pixels.
    It resizes and normalizes by itself. Licence: apache-2.0; see pretrainps.info("nae-tiny-synthetic").
    """
    return _load("nae-tiny-synthetic", device, offline, progress)
