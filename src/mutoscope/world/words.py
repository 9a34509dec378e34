"""The words of the world, for writing and for reading. The first word of each row is the canonical one.

A share of the synonyms is only ever read (HELD_OUT_SYNONYMS), so that understanding them can be measured.
"""

from mutoscope.world.stage import BACKGROUNDS

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "bright red"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden", "lemon yellow"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white", "snow white"),
    "black": ("black", "jet black"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "circle", "disc"),
    "box": ("box", "square", "block"),
    "triangle": ("triangle",),
    "star": ("star", "five-pointed star"),
    "ring": ("ring", "hoop"),
    "capsule": ("capsule", "pill"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "mid-sized", "medium"),
    "large": ("large", "big"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("by day", "under a clear blue sky", "on a sunny day"),
    "sunset": ("at sunset", "in front of a sunset"),
    "night": ("at night", "under a dark night sky"),
    "desert": ("in the desert", "in a sandy desert"),
    "meadow": ("in a meadow", "in front of a green meadow"),
    "ocean": ("by the ocean", "in front of the sea"),
    "lavender": ("in a lavender room", "in a pale violet room"),
    "snow": ("in the snow", "in front of snowy peaks"),
}
HELD_OUT_SYNONYMS: dict[str, tuple[str, str]] = {
    "scarlet": ("colour", "red"),
    "amber": ("colour", "orange"),
    "teal": ("colour", "cyan"),
    "azure": ("colour", "blue"),
    "magenta": ("colour", "pink"),
    "sphere": ("shape", "ball"),
    "cube": ("shape", "box"),
    "lozenge": ("shape", "capsule"),
    "huge": ("size", "large"),
    "mini": ("size", "small"),
    "dusk": ("background", "sunset"),
    "dunes": ("background", "desert"),
    "ascends": ("direction", "up"),
    "plunges": ("direction", "down"),
    "motionless": ("direction", "still"),
}

# Verbs by how a body moves (scene.Body.manner), each with the words that give the direction.
SIDEWAYS = {
    "roll": ("rolls", "is rolling", "moves"),
    "slide": ("slides", "is sliding", "moves", "glides"),
    "drift": ("drifts", "flies", "moves", "glides"),
}
TO_SIDE = {
    "left": ("to the left", "left", "from right to left", "towards the left side"),
    "right": ("to the right", "right", "from left to right", "towards the right side"),
}
VERTICAL = {
    "up": ("floats up", "rises", "moves up", "goes up", "flies upwards"),
    "down": ("sinks", "moves down", "goes down", "floats down", "descends"),
}
STILL = {
    "stand": ("stands still", "rests on the floor", "stays still", "does not move"),
    "hang": ("hangs still in the air", "hovers in place", "stays still"),
}
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
    "behind": ("behind",),
    "in front of": ("in front of",),
}
MATERIAL_WORDS = {"rubber": ("rubber", "bouncy rubber"), "wood": ("wooden",), "clay": ("clay",)}
BOUNCES = ("falls and bounces", "drops and bounces", "bounces on the floor", "bounces up and down")
LANDS = ("falls to the floor", "drops to the floor", "falls down and stays there")
FALLS = ("falls", "drops", "is falling")
HOPS = ("bounces", "hops", "bounces along")
HITS = ("bumps into", "hits", "collides with")
PASSES = {"behind": ("behind", "and passes behind"), "in front of": ("in front of", "and passes in front of")}
ENTERS = {
    "left": ("in from the left", "into view from the left"),
    "right": ("in from the right", "into view from the right"),
}
LEAVES = {
    "left": ("out to the left", "out of view on the left"),
    "right": ("out to the right", "out of view on the right"),
}
CAMERA_WORDS = {
    "pan left": ("the camera pans left", "the camera moves left", "the view pans to the left"),
    "pan right": ("the camera pans right", "the camera moves right", "the view pans to the right"),
    "tilt up": ("the camera tilts up", "the camera moves up", "the view tilts upwards"),
    "tilt down": ("the camera tilts down", "the camera moves down", "the view tilts downwards"),
    "zoom in": ("the camera zooms in", "the camera comes closer", "a slow zoom in"),
    "zoom out": ("the camera zooms out", "the camera backs away", "a slow zoom out"),
    "follow": ("the camera follows", "the camera goes along", "a tracking shot"),
}
STYLE_WORDS = {
    "outline": ("in outline style", "drawn in outline", "as a coloured outline drawing"),
    "neon": ("in neon style", "in glowing neon", "as neon lights in the dark"),
}
EYES = {1: "one eye", 2: "two eyes", 3: "three eyes"}
NUMBERS = {
    1: ("one object", "a single object"),
    2: ("two objects",),
    3: ("three objects",),
    4: ("four objects",),
}
STAGE = (
    "The scene is a small paper theatre.",
    "Everything is cut from paper, with soft shadows.",
    "The clip shows a paper stage with layered scenery.",
    "Soft light falls from the upper left on the paper cut-outs.",
)
BOILERPLATE = (
    "free download", "hd stock video", "click to subscribe", "IMG 2043", "my favourite clip", "watch till the end",
    "4k royalty free", "posted by user",
)  # fmt: skip

# --- reading

ONLY_READ = {
    (
        "colour",
        "red",
    ): "ruby, cherry, cherry red, dark red, blood red, maroon, vermilion, burgundy, brick red",
    ("colour", "orange"): "apricot, bright orange, pumpkin, carrot, dark orange",
    ("colour", "yellow"): "gold, lemon, bright yellow, sunny yellow, mustard, canary, light yellow",
    (
        "colour",
        "green",
    ): "lime, olive, jade, mint, grass green, dark green, light green, bright green, forest green",
    ("colour", "cyan"): "aqua, aquamarine, light blue, sky-blue, bluish green",
    ("colour", "blue"): "navy, navy blue, cobalt, sapphire, ultramarine, dark blue, deep blue, bright blue",
    ("colour", "purple"): "indigo, lilac, mauve, plum, amethyst, dark purple",
    ("colour", "pink"): "fuchsia, hot pink, light pink, salmon, blush",
    ("colour", "white"): "ivory, snowy white, pure white, snow-white",
    ("colour", "black"): "ebony, onyx, charcoal, dark black, coal black, pitch black",
    ("shape", "ball"): (
        "round ball, disk, globe, bubble, marble, football, basketball, soccer ball, tennis ball, bowling ball, "
        "beach ball, round shape"
    ),
    ("shape", "box"): "brick, cardboard box, package, parcel, carton, cuboid, square box, boxes",
    ("shape", "triangle"): "pyramid, triangular shape",
    ("shape", "star"): "starlet, paper star, star shape",
    ("shape", "ring"): "donut, doughnut, torus, annulus, hula hoop, round ring",
    ("shape", "capsule"): "tablet, bean, oblong",
    ("size", "small"): "miniature, teeny, wee, smallish, petite, minuscule",
    ("size", "medium"): "normal-sized, average-sized, middling",
    ("size", "large"): "giant, gigantic, enormous, massive, oversized, colossal, immense, jumbo",
    ("background", "sunset"): "sundown, evening, twilight, golden hour",
    (
        "background",
        "night",
    ): "midnight, nighttime, night sky, moonlight, moonlit, starry night, dark night, starry sky",
    ("background", "desert"): "sand, sahara, sandy",
    (
        "background",
        "meadow",
    ): "grass, field, grassland, lawn, pasture, prairie, grassy, green field, green grass",
    ("background", "ocean"): "seaside, seashore, shore, beach, waves, coast, coastline",
    (
        "background",
        "day",
    ): "daytime, daylight, blue sky, azure sky, clear azure sky, sunny day, during the day, midday, noon",
    ("background", "snow"): "winter, snowfield, wintry, snowy peaks, snowy mountains, white snow",
    ("background", "lavender"): "lavender room, violet room, purple room, lilac room, lavender background",
    (
        "direction",
        "up",
    ): "soars, soaring, ascend, rise, climb, climbing, lifting, skyward, levitates, levitating, takes off",
    ("direction", "down"): "sink, descend, descending, fall, drop, dropping, plummets, tumbles",
    ("direction", "left"): "to left, toward the left, towards the left, to the left side, right to left",
    ("direction", "right"): "to right, toward the right, towards the right, to the right side, left to right",
    ("direction", "still"): (
        "standing, resting, stationary, hovering, sits, sitting, lies, idle, waiting, in place, unmoving, frozen, "
        "at rest, static"
    ),
    ("event", "bounce"): "hopping, jumps, jump, jumping, leaps, leaping, bounces up",
    ("event", "enter left"): "comes in from the left, appears from the left, enters left, enters from left",
    (
        "event",
        "enter right",
    ): "comes in from the right, appears from the right, enters right, enters from right",
    (
        "event",
        "leave left",
    ): "exits left, exits to the left, exits on the left, leaves left, out of frame to the left",
    ("event", "leave right"): (
        "exits right, exits to the right, exits on the right, leaves right, out of frame to the right"
    ),
    ("link", "collide"): "crashes into, smashes into, runs into, bumps, collides with, crash into",
    ("camera", "pan left"): "pan left, pans left, panning left, camera panning left",
    ("camera", "pan right"): "pan right, pans right, panning right, camera panning right",
    ("camera", "tilt up"): "tilt up, tilts up, tilting up",
    ("camera", "tilt down"): "tilt down, tilts down, tilting down",
    ("camera", "zoom in"): "dolly in, push in, close in, camera zoom in, zoomed in",
    ("camera", "zoom out"): "dolly out, pull back, pulls back, camera zoom out, camera pulls back",
    (
        "camera",
        "follow",
    ): "tracking shot, camera tracks, camera tracking, follow shot, camera following, follow cam",
    ("style", "neon"): "neon lights, neon glow, glowing neon",
    ("style", "outline"): "outlined, line drawing, line art, outline drawing",
    ("relation", "behind"): "in back of, goes behind, passes behind",
    ("relation", "in front of"): "passes in front of",
    ("relation", "above"): "on top of, higher than",
    ("relation", "below"): "underneath, beneath, lower than",
    ("relation", "left of"): "on the left of, on the left side of",
    ("relation", "right of"): "on the right of, on the right side of",
}

READING: dict[str, tuple[str, str]] = {
    **{word: ("colour", name) for name, words in COLOUR_WORDS.items() for word in words},
    **{word: ("shape", name) for name, words in SHAPE_WORDS.items() for word in words},
    **{word: ("size", name) for name, words in SIZE_WORDS.items() for word in words},
    **{word: ("background", name) for name, words in BACKGROUND_WORDS.items() for word in words},
    **{name: ("background", name) for name in BACKGROUNDS if name not in ("day", "lavender", "snow")},
    **{word: ("direction", name) for name, words in TO_SIDE.items() for word in words},
    **{word: ("direction", name) for name, words in VERTICAL.items() for word in words},
    **{word: ("direction", "still") for words in STILL.values() for word in words},
    **{
        word: ("direction", name)
        for name, words in {
            "up": ("up", "upwards", "upward", "ascending", "rising", "climbs", "lifts off"),
            "down": ("down", "downwards", "downward", "falls", "drops", "falling", "sinking", "lands"),
            "left": ("leftwards", "leftward"),
            "right": ("rightwards", "rightward"),
            "still": ("still", "stands", "rests", "hangs", "hovers", "waits"),
        }.items()
        for word in words
    },
    "crate": ("shape", "box"), "circular shape": ("shape", "ball"), "orb": ("shape", "ball"),
    "sea": ("background", "ocean"), "sunny": ("background", "day"), "snowy": ("background", "snow"),
    "sky blue": ("colour", "cyan"),
    **{word: ("material", name) for name, words in MATERIAL_WORDS.items() for word in words},
    "wood": ("material", "wood"), "bouncy": ("material", "rubber"),
    **dict.fromkeys((*BOUNCES, *HOPS, "bounce", "bouncing"), ("event", "bounce")),
    **dict.fromkeys(LANDS, ("direction", "down")),
    **dict.fromkeys(FALLS, ("direction", "down")),
    **{word: ("event", f"enter {side}") for side, words in ENTERS.items() for word in words},
    **{word: ("event", f"leave {side}") for side, words in LEAVES.items() for word in words},
    **{f"enters from the {side}": ("event", f"enter {side}") for side in ENTERS},
    **{f"leaves {way} the {side}": ("event", f"leave {side}") for side in LEAVES for way in ("on", "to")},
    **dict.fromkeys((*HITS, "bump into", "hit", "collide with", "knocks into", "strikes"), ("link", "collide")),
    **{word: ("camera", name) for name, words in CAMERA_WORDS.items() for word in words},
    **{f"camera {verb} {side}": ("camera", f"pan {side}") for side in ("left", "right") for verb in ("pans", "pan")},
    **{f"camera {verb} {way}": ("camera", f"tilt {way}") for way in ("up", "down") for verb in ("tilts", "tilt")},
    **{f"{verb} {way}": ("camera", f"zoom {way}") for way in ("in", "out") for verb in ("zooms", "zoom", "zooming")},
    "camera follows": ("camera", "follow"),
    **{word: ("style", name) for name, words in STYLE_WORDS.items() for word in words},
    "neon": ("style", "neon"), "neon style": ("style", "neon"), "outline": ("style", "outline"),
    **{word: ("eyes", str(number)) for number, word in EYES.items()},
    "hat": ("hat", ""), "cap": ("hat", ""),
    **{f"shot {number}": ("shot", str(number)) for number in range(1, 10)},
    **{word: meaning for meaning, words in ONLY_READ.items() for word in words.split(", ")},
    **dict.fromkeys(
        ("on the left", "on the right", "in the middle", "high up", "low down", "halfway up", "upper left",
         "light falls", "a small paper theatre"),
        ("function", ""),
    ),
    **HELD_OUT_SYNONYMS,
}  # fmt: skip
RELATIONS_READ = {word: name for name, words in RELATION_WORDS.items() for word in words}
COUNT_WORDS = {word: number for number, words in NUMBERS.items() for word in words}
NUMBER_WORDS = {"two": 2, "three": 3, "four": 4, "2": 2, "3": 3, "4": 4, "pair": 2, "couple": 2}
ELSEWHERE = frozenset("floor ground stage room light lights sky air scene shadows picture".split())
NO_TYPOS = frozenset(
    "rig pin back let don can sow whit bring stair store stare bell track tree trees sage flat font pace nigh plan "
    "pain sill lock form pal hags bums quite sway cone lone mild tale".split()
)
FUNCTION_WORDS = frozenset(
    "eyes eye what whose how why moment go goes run runs running travel "
    "travels traveling travelling head heads heading make makes motion speed quick "
    "slow calmly smooth smoothly straight steady steadily i me my we you want would like could please see showing "
    "gif pretty cute nice beautiful cool toy some few so much own its itself lets simple plain "
    "paper-cut papercut cutout cinematic these those them "
    "he she them their same again now who which wears wearing has have camera view come comes coming after before "
    "meets please make create generate along next near beside very bright really just also until start starts end ends "
    "background colour color coloured colored shape shaped sized movie film animation gets get through around top "
    "bottom edge screen frame empty nothing only other another each all hop bounce onto when where for no not "
    "a an the and or of is are it its on in at to from with by there this that one single scene clip video stage "
    "paper theatre soft shadows light small shows show set takes place picture object objects everything cut cut-outs "
    "layered scenery falls upper middle halfway low high side towards toward front quiet while then as slowly quickly "
    "fast gently across over past rolls rolling roll slides sliding slide moves moving move glides gliding drifts "
    "drifting flies flying floats floating float goes going travels is be being clear pale room sky under air place "
    "floor ground does not stays stay bounces some his her into out".split()
)
