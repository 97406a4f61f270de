"""Words that people type and the nano model has no object for, and what they type in front of a question."""

UNKNOWN_COLORS = (
    *("magenta", "turquoise", "silver", "golden", "violet", "crimson", "navy", "olive", "coral", "indigo", "khaki"),
    *("beige", "maroon", "teal", "lime", "transparent", "striped", "dotted", "shiny", "wooden", "metal"),
)
UNKNOWN_SHAPES = (
    *("arrow", "cross", "pentagon", "octagon", "crescent", "trapezoid", "parallelogram", "ring", "cube", "sphere"),
    *("cone", "cylinder", "pyramid", "spiral", "line", "polygon", "curve", "dot", "moon", "plus sign"),
)
UNKNOWN_THINGS = (
    *("dog", "cat", "car", "person", "tree", "house", "man", "woman", "table", "chair", "cup", "bird", "horse", "bus"),
    *("bottle", "phone", "book", "boat", "face", "hand", "flower", "sky", "road", "hat", "bike", "clock", "apple"),
    *("background", "grass", "water", "sea", "beach", "mountain", "river", "cloud", "sun", "moon", "building", "wall"),
    *("window", "door", "floor", "roof", "street", "bridge", "train", "truck", "plane", "airplane", "ship", "bicycle"),
    *("motorcycle", "helmet", "wheel", "tire", "traffic light", "stop sign", "fence", "bench", "sofa", "bed", "lamp"),
    *("mirror", "carpet", "curtain", "shelf", "plate", "fork", "knife", "spoon", "bowl", "glass", "pizza", "cake"),
    *("banana", "carrot", "sandwich", "coffee", "bread", "egg", "fish", "cow", "sheep", "pig", "elephant", "giraffe"),
    *("bear", "lion", "tiger", "monkey", "rabbit", "mouse", "snake", "spider", "butterfly", "bee", "duck", "chicken"),
    *("child", "baby", "girl", "boy", "doctor", "player", "rider", "driver", "soldier", "astronaut", "robot", "head"),
    *("hair", "eye", "nose", "mouth", "ear", "arm", "leg", "foot", "finger", "shirt", "dress", "jacket", "trousers"),
    *("shoe", "glove", "bag", "backpack", "umbrella", "tie", "watch", "glasses", "ball", "kite", "racket", "guitar"),
    *("piano", "laptop", "keyboard", "screen", "camera", "television", "remote", "scissors", "toothbrush", "pencil"),
    *("paper", "box", "basket", "vase", "candle", "fire", "smoke", "snow", "ice", "stone", "rock", "leaf", "forest"),
    *("garden", "field", "tumor", "lesion", "liver", "cell", "nucleus", "crack", "pothole", "logo", "flag", "map"),
    *("shadow", "reflection", "statue", "castle", "tower", "church", "tent", "rope", "key", "coin", "gun", "drone"),
)
"""What comes first was in the first edition's list; evaluation asks for others (`training/evaluation/edges.py`)."""
SYLLABLES = (
    *(
        "ba",
        "bo",
        "da",
        "dro",
        "fen",
        "gla",
        "ka",
        "kri",
        "la",
        "lo",
        "mu",
        "na",
        "nor",
        "pla",
        "pi",
        "qua",
        "ra",
        "ri",
    ),
    *(
        "sa",
        "ska",
        "sto",
        "ta",
        "tri",
        "um",
        "va",
        "vo",
        "wex",
        "xi",
        "ya",
        "zo",
        "zor",
        "ble",
        "gon",
        "ton",
        "us",
        "ix",
    ),
)
"""Made-up words are two or three of these."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You are an AI assistant that answers questions about images.",
    "You are a vision-language assistant.",
    "You are an expert in image segmentation.",
    "You are ChatGPT, a large language model.",
    "You are Sa2VA, a model that understands images and videos.",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.",
    "Answer concisely.",
    "Answer briefly and precisely.",
    "Answer in English.",
    "Be brief.",
    "Respond with segmentation masks when asked.",
    "Please answer the question about the picture.",
    "You will be shown a picture. Answer the user's questions.",
    "You are a data labeling tool.",
    "You are an annotator. Be accurate.",
    "Follow the user's instructions carefully.",
)
ADJECTIVES = (
    *(
        "helpful",
        "careful",
        "smart",
        "polite",
        "precise",
        "fast",
        "modern",
        "large",
        "small",
        "honest",
        "expert",
        "good",
    ),
    *("multimodal", "visual", "patient", "professional", "kind", "useful", "reliable", "creative", "new", "advanced"),
)
ROLES = (
    *("assistant", "AI", "AI model", "bot", "agent", "language model", "vision model", "image expert", "robot", "tool"),
    *("annotator", "labeler", "teacher", "photographer", "research assistant", "segmentation model", "image reader"),
)
ENDS = (
    *(".", ".", ".", " that sees pictures.", " for images.", " made by a company.", " who helps people.", " in a lab."),
    *(" that answers questions.", ", trained on images and text.", " that finds objects.", " with good eyes."),
)
MANNERS = (
    *(
        "Be short.",
        "Answer in a few words.",
        "Think step by step.",
        "Use simple words.",
        "Do not explain.",
        "Be exact.",
    ),
    *("Reply in one word where you can.", "Use at most two sentences.", "Only answer what was asked.", "Be friendly."),
    *(
        "Say the truth.",
        "Answer every question of the user.",
        "If you do not know, say so.",
        "Look at the whole image.",
    ),
    *("The user will show you images.", "Give masks for objects.", "Never make things up.", "Respond in plain text."),
    *("Speak English.", "You can segment objects.", "Current date: 2026.", "Knowledge cutoff: 2024.", "No small talk."),
)
"""Of which system prompts are put together; evaluation has others."""
GREETINGS = (
    *("Hi.", "Hi!", "Hello.", "Hello!", "Hello there,", "Hey,", "Hi there!", "Good morning.", "Good evening!", "OK,"),
    *("Thanks!", "Please help me.", "I have a question.", "One more question:", "Look at this picture.", "So,", "Now,"),
    *("Look at the image.", "Here is an image.", "Question:", "User:", "Now look closely.", "Dear assistant,"),
)
